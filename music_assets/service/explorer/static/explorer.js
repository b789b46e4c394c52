// Closes the suggestions of a search box with Escape, and when the focus leaves it.

function suggestionsOf(element) {
  return element.closest?.(".search-box")?.querySelector(".suggestions");
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") suggestionsOf(event.target)?.replaceChildren();
});

document.addEventListener("focusout", (event) => {
  const box = event.target.closest?.(".search-box");
  if (box && event.relatedTarget && !box.contains(event.relatedTarget)) suggestionsOf(box)?.replaceChildren();
});
