const tools = document.querySelector(".tools");
const [words, entity, data, owner] = tools.querySelectorAll("input, select");
const views = [...document.querySelectorAll(".view")].map((view) => ({
  view,
  about: view.querySelector(".about").textContent.toLowerCase(),
  rows: [...view.querySelectorAll("tr[id]")].map((row) => ({ row, text: row.textContent.toLowerCase() })),
}));

function search() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { view, about, rows } of views) {
    const here =
      (!owner.value || view.dataset.owner === owner.value) &&
      (!entity.value || view.dataset.entity.split(" ").includes(entity.value));
    let some = false;
    for (const { row, text } of rows) {
      const fits =
        here && (!data.value || row.dataset.data === data.value) &&
        wanted.every((word) => text.includes(word) || about.includes(word));
      row.hidden = !fits;
      some ||= fits;
      shown += fits;
    }
    view.hidden = !some;
  }
  document.querySelector("#shown").textContent = shown;
  document.querySelector("#nothing").hidden = shown > 0;
}

tools.addEventListener("input", search);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== words) {
    event.preventDefault();
    words.focus();
  }
});
search(); // a browser keeps what was typed when the page is loaded again
