import pickle
import pickletools
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from format_world import draw, drawn_with, trained
from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, format_of, import_file
from personae.formats.safe_pickle import save_pickle

SETTINGS = {"num_vectors": 3, "placeholder": "<mira>", "initializer_words": "cat"}
PROMPT = "a <mira> in the hat"


def vectors(artifact, tower: int = 0):
    return artifact.tensors[f"textual_inversion.vectors.{tower}"]


def drawn(pipe):
    return pipe(
        PROMPT,
        num_inference_steps=2,
        guidance_scale=1.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
@pytest.mark.parametrize("name", ["embedding", "diffusers_embedding", "a1111_embedding"])
def test_diffusers_reads_an_exported_embedding_as_we_do(
    kind, name, pipes, bases, fresh_pipeline, tmp_path
):
    base = bases[kind]
    artifact = trained("textual_inversion", base, **SETTINGS)
    path = export_file(artifact, name, tmp_path / "mira", base)
    other = fresh_pipeline(kind)
    other.load_textual_inversion(
        str(tmp_path), weight_name=path.name, token="<mira>", local_files_only=True
    )
    (technique,) = artifact.build(base)
    technique.inject()
    embeds = base.encode_text([PROMPT]).embeds
    technique.eject()
    prompt = other.maybe_convert_prompt(PROMPT, other.tokenizer)
    ids = other.tokenizer(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    assert (other.text_encoder(ids).last_hidden_state - embeds).abs().max() < 1e-5
    ours = pipes[kind](
        prompt_embeds=embeds,
        num_inference_steps=2,
        guidance_scale=1.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    assert (drawn(other) - ours).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["embedding", "diffusers_embedding", "a1111_embedding"])
def test_an_exported_embedding_comes_back_with_the_same_vectors(name, bases, tmp_path):
    artifact = trained("textual_inversion", bases["sd1"], **SETTINGS)
    path = export_file(artifact, name, tmp_path / "mira", bases["sd1"])
    assert format_of(path).name == name
    back = import_file(path, bases["sd1"])
    assert torch.equal(vectors(back), vectors(artifact))
    assert back.card.character.phrase == "<mira>"
    assert back.card.techniques[0].config["placeholder"] == "<mira>"


def test_two_text_encoders_are_kept_as_clip_l_and_clip_g(bases, tmp_path):
    base = bases["sdxl"]
    artifact = trained("textual_inversion", base, **SETTINGS)
    path = export_file(artifact, "embedding", tmp_path / "mira", base)
    stored = load_file(path)
    assert stored["clip_l"].shape == (3, 24)
    assert stored["clip_g"].shape == (3, 32)
    back = import_file(path, base)
    assert torch.equal(vectors(back, 0), vectors(artifact, 0))
    assert torch.equal(vectors(back, 1), vectors(artifact, 1))
    for name in ("diffusers_embedding", "a1111_embedding"):
        with pytest.raises(UnsupportedError, match="embedding"):
            export_file(artifact, name, tmp_path / "no", base)


def test_the_pickle_is_a_zip_that_a1111_accepts(bases, tmp_path):
    """A1111 lets three kinds of members and a short list of classes through."""
    artifact = trained("textual_inversion", bases["sd1"], **SETTINGS)
    path = export_file(artifact, "a1111_embedding", tmp_path / "mira", bases["sd1"])
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        code = archive.read("archive/data.pkl")
    assert sorted(names) == ["archive/data.pkl", "archive/data/0", "archive/version"]
    opcodes = [(op.name, value) for op, value, _ in pickletools.genops(code)]
    called = {str(value) for name, value in opcodes if name in ("GLOBAL", "STACK_GLOBAL")}
    assert called <= {
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "collections OrderedDict",
    }
    content = torch.load(path, weights_only=True)
    assert type(content["string_to_param"]["*"]) is torch.Tensor


@pytest.mark.parametrize(
    "content",
    [
        {"emp_params": draw(2, 24), "emp_params_out": draw(2, 24)},
        {"emb_params": draw(24)},
        {"<mira>": draw(2, 24)},
        {"mira": draw(24)},
    ],
)
def test_other_writers_spellings_are_read(content, bases, tmp_path):
    path = tmp_path / "mira.safetensors"
    save_file(content, path)
    back = import_file(path, bases["sd1"])
    value = next(iter(content.values()))
    assert torch.equal(vectors(back), value.reshape(-1, 24))
    assert back.card.character.phrase == "<mira>"


def test_an_embedding_in_a_lora_file_is_read_with_it(pipes, bases, plain, tmp_path):
    base = bases["sd1"]
    lora = trained("lora", base, rank=2)
    path = export_file(lora, "kohya", tmp_path / "mira", base)
    tensors = load_file(path) | {"bundle_emb.mira.string_to_param.*": draw(2, 24)}
    save_file(tensors, path)
    back = import_file(path, base)
    assert back.technique == "lora+textual_inversion"
    assert torch.equal(vectors(back), draw(2, 24))
    assert (drawn_with(back, pipes["sd1"], base) - plain["sd1"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"clip_l": draw(2, 24), "clip_g": draw(3, 32)}, "unlike numbers"),
        ({"clip_l": draw(2, 24)}, "another kind of base"),
        ({"clip_l": draw(2, 24), "clip_g": draw(2, 33)}, "another kind of base"),
        ({"clip_l": draw(80, 24), "clip_g": draw(80, 32)}, "room for 75"),
        ({"clip_l": draw(2, 24) / 0, "clip_g": draw(2, 32)}, "not finite"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(content, reason, bases, tmp_path):
    path = tmp_path / "pair.safetensors"
    save_file(content, path)
    with pytest.raises(ArtifactError, match=reason):
        import_file(path, bases["sdxl"])


class Hostile:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
def test_a_pickle_with_code_is_refused_and_not_run(suffix, bases, tmp_path, capsys):
    for i, save in enumerate(
        (torch.save, lambda values, path: path.write_bytes(pickle.dumps(values)))
    ):
        path = tmp_path / f"bad{i}{suffix}"
        save({"string_to_param": {"*": Hostile()}}, path)
        with pytest.raises(ArtifactError, match=r"could run code|damaged") as caught:
            import_file(path, bases["sd1"])
        assert "\n" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_a_zip_bomb_is_refused_before_it_unpacks(bases, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(ArtifactError, match="compressed"):
        import_file(path, bases["sd1"])


def test_a_path_out_of_the_archive_is_refused(bases, tmp_path):
    path = tmp_path / "out.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil/data.pkl", b"x")
    with pytest.raises(ArtifactError, match="outside the archive"):
        import_file(path, bases["sd1"])


@pytest.mark.parametrize(
    "content",
    [
        {"string_to_param": {}},
        {"string_to_param": {"*": draw(2, 24), "b": draw(2, 24)}},
        {"string_to_param": {"*": "text"}},
        {"string_to_param": [1]},
        {"string_to_param": {"*": draw(2, 9)}},
        {"string_to_param": {"*": torch.ones(2, 24, dtype=torch.int64)}},
    ],
)
def test_a_malformed_a1111_embedding_is_refused(content, bases, tmp_path):
    path = save_pickle(content, tmp_path / "odd.pt")
    with pytest.raises(ArtifactError, match=r"odd\.pt"):
        import_file(path, bases["sd1"])


def test_nothing_is_recognised_as_an_unknown_suffix(bases, tmp_path):
    path = tmp_path / "mira.xyz"
    path.write_bytes(b"anything")
    with pytest.raises(ArtifactError, match="none of the formats"):
        import_file(path, bases["sd1"])
    with pytest.raises(ArtifactError, match="no such file"):
        import_file(tmp_path / "absent.pt", bases["sd1"])
