"use strict";
// Without this script the page shows everything; with it, it can be searched, and lines be copied.
const here = new URL(".", location.href).href.replace(/\/$/, "");
if (location.protocol.startsWith("http")) {
  for (const span of document.querySelectorAll(".here")) span.textContent = here;
}
const search = document.getElementById("search");
search.parentElement.hidden = false;
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("section")) {
    let any = false;
    for (const row of section.querySelectorAll("tbody tr")) {
      row.hidden = !words.every((word) => row.dataset.text.includes(word));
      any = any || !row.hidden;
    }
    section.hidden = !any;
  }
});
async function copy(text) {
  // The clipboard is given to pages that came by https or from this machine; elsewhere the old way works.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
for (const button of document.querySelectorAll("button")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const from = button.dataset.of;
    await copy(from ? document.getElementById(from).textContent : button.dataset.copy);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
}
