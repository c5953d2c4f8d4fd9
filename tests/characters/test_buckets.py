"""Buckets keep the area, and a crop loses as little of a picture as it can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from personae.characters.buckets import buckets, fit, nearest_bucket
from personae.errors import UsageError


@given(st.integers(1, 16), st.sampled_from([8, 16, 32, 64]), st.floats(1.0, 4.0, allow_nan=False))
def test_buckets_have_the_area_the_step_and_the_ratio_asked_for(
    count: int, step: int, ratio: float
) -> None:
    side = count * step
    sizes = buckets(side, step, ratio)
    assert (side, side) in sizes
    for width, height in sizes:
        assert width % step == height % step == 0
        assert 0.75 * side * side <= width * height <= side * side
        assert max(width, height) <= ratio * min(width, height)
        assert (height, width) in sizes
    assert list(sizes) == sorted(sizes, key=lambda size: size[0] / size[1])


def test_the_buckets_of_512_are_the_known_ones() -> None:
    assert buckets(512, 64) == (
        (320, 640),
        (384, 640),
        (448, 576),
        (512, 512),
        (576, 448),
        (640, 384),
        (640, 320),
    )
    assert buckets(128, 64, 1.0) == ((128, 128),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((500, 64), "resolution is 500"),
        ((32, 64), "resolution is 32"),
        ((64, 64, 0.5), "max_ratio"),
    ],
)
def test_sizes_that_cannot_be_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        buckets(*arguments)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_no_other_bucket_is_nearer(width: int, height: int) -> None:
    sizes = buckets(512, 64)
    chosen = nearest_bucket((width, height), sizes)

    def distance(size: tuple[int, int]) -> float:
        return abs(np.log(size[0] / size[1]) - np.log(width / height))

    assert distance(chosen) <= min(map(distance, sizes)) + 1e-8


def quadrants() -> Image.Image:
    """Return 80x40: red, green, blue and white columns of 20 pixels each."""
    picture = Image.new("RGB", (80, 40))
    for index, colour in enumerate(("red", "lime", "blue", "white")):
        picture.paste(colour, (20 * index, 0, 20 * index + 20, 40))
    return picture


def test_the_middle_is_kept_whole() -> None:
    fitted, mask = fit(quadrants(), (20, 20))
    assert mask is None
    assert fitted.size == (20, 20)
    assert fitted.getpixel((4, 10)) == (0, 255, 0)
    assert fitted.getpixel((15, 10)) == (0, 0, 255)


def test_the_same_proportions_lose_nothing() -> None:
    picture = quadrants()
    assert fit(picture, (80, 40))[0].tobytes() == picture.tobytes()
    assert fit(picture, (40, 20))[0].tobytes() == (
        picture.resize((40, 20), Image.Resampling.LANCZOS).tobytes()
    )


def test_a_random_crop_follows_its_generator_and_reaches_both_ends() -> None:
    picture = quadrants()
    one = fit(picture, (20, 20), "random", np.random.default_rng(3))[0]
    assert one.tobytes() == fit(picture, (20, 20), "random", np.random.default_rng(3))[0].tobytes()
    rng = np.random.default_rng(0)
    seen = [fit(picture, (20, 20), "random", rng)[0] for _ in range(40)]
    assert any(image.getpixel((2, 10)) == (255, 0, 0) for image in seen)
    assert any(image.getpixel((17, 10)) == (255, 255, 255) for image in seen)
    with pytest.raises(UsageError, match="pass rng"):
        fit(picture, (20, 20), "random")


def test_the_mask_is_cropped_where_the_picture_is() -> None:
    picture = quadrants()
    mask = picture.getchannel("R").point(lambda value: 255 if value else 0)
    rng = np.random.default_rng(5)
    for _ in range(10):
        fitted, cropped = fit(picture, (32, 32), "random", rng, mask=mask)
        red = np.asarray(fitted)[:, :, 0].astype(int)
        assert (cropped.mode, cropped.size) == ("L", (32, 32))
        assert np.abs(red - np.asarray(cropped)).mean() < 6
    with pytest.raises(UsageError, match="must be equal"):
        fit(picture, (32, 32), mask=mask.resize((40, 40)))


@given(st.integers(1, 400), st.integers(1, 400))
def test_every_size_can_be_fitted(width: int, height: int) -> None:
    assert fit(Image.new("RGB", (width, height)), (64, 32))[0].size == (64, 32)
