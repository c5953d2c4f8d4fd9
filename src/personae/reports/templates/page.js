(() => {
  const viewer = document.getElementById("viewer");
  const image = viewer.querySelector("img");
  const [title, what, detail] = ["strong", ".what", "small"].map((part) => viewer.querySelector(part));
  const pictures = [...document.querySelectorAll("button.picture")];
  let shown = 0;

  const show = (index) => {
    shown = (index + pictures.length) % pictures.length;
    const picture = pictures[shown];
    image.src = picture.querySelector("img").src;
    image.alt = picture.querySelector("img").alt;
    title.textContent = picture.dataset.title;
    what.textContent = picture.dataset.prompt;
    detail.textContent = picture.dataset.detail;
    if (!viewer.open) viewer.showModal();
  };

  pictures.forEach((picture, index) => picture.addEventListener("click", () => show(index)));
  viewer.querySelectorAll("[data-step]").forEach((button) =>
    button.addEventListener("click", () => show(shown + Number(button.dataset.step))));
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => pictures[shown].focus());

  const columns = () => {
    const cells = pictures[shown].closest(".cells");
    const grid = pictures[shown].closest(".grid");
    if (grid) return getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    return cells ? cells.querySelectorAll("button.picture").length : 1;
  };
  viewer.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
    if (event.key in steps) { event.preventDefault(); show(shown + steps[event.key]); }
  });

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
