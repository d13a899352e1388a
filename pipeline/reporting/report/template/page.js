(() => {
  "use strict";
  const STEP = 60;
  const cards = [...document.querySelectorAll(".card")];
  const filters = document.getElementById("filters");
  if (!filters) return;
  const more = document.getElementById("more");
  const viewer = document.getElementById("viewer");
  let limit = STEP;
  let matching = cards;

  const show = () => {
    const name = filters.elements["class"].value;
    const boxes = [...filters.querySelectorAll("input[name=outcome]")];
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const ofClass = cards.filter((card) => !name || card.dataset.class === name);
    for (const box of boxes) {
      const count = ofClass.filter((card) => card.dataset.outcome === box.value).length;
      filters.querySelector(`[data-count="${box.value}"]`).textContent = count;
    }
    matching = ofClass.filter((card) => wanted.has(card.dataset.outcome));
    const visible = new Set(matching.slice(0, limit));
    for (const card of cards) card.hidden = !visible.has(card);
    const rest = matching.length - visible.size;
    more.hidden = rest === 0;
    more.textContent = `Show ${Math.min(rest, STEP)} more of ${rest}`;
    document.getElementById("shown").textContent = `${visible.size} of ${matching.length} shown`;
  };
  filters.addEventListener("change", () => { limit = STEP; show(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += STEP; show(); });

  let current = 0;
  const view = (number) => {
    current = (number + matching.length) % matching.length;
    const copies = [...matching[current].children].map((child) => child.cloneNode(true));
    const pictures = document.createElement("div");
    pictures.className = "enlarge";
    pictures.append(...copies[0].children);
    viewer.querySelector(".content").replaceChildren(pictures, ...copies.slice(1));
    if (!viewer.open) viewer.showModal();
  };
  document.querySelector(".cards").addEventListener("click", (event) => {
    const link = event.target.closest("a.enlarge");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    view(matching.indexOf(link.closest(".card")));
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
    else if (event.target.value) view(current + Number(event.target.value));
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) view(current + step);
  });

  filters.hidden = false;
  filters.reset();
  show();
})();
