// Closes the suggestions of a search box with Escape, and when the focus leaves it. Keeps a query across the sign-in.

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

// Browsers do not send the fragment, which holds the query of the SQL console.
const after = document.querySelector('form[action="/sign-in"] input[name="after"]');
if (after) after.value += location.hash;
