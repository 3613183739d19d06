/* Where the reader is, in the address: a link restores the view. `#explorer?store=0&sample=3&step=12&pin=156,157` */

function readPlace(part) {
  const [name, query] = decodeURIComponent(location.hash.slice(1)).split("?");
  return name === part && query !== undefined ? Object.fromEntries(new URLSearchParams(query)) : null;
}

let placeTimer = 0;

/** Written once the reader rests: browsers limit how often an address may change. */
function writePlace(part, state) {
  clearTimeout(placeTimer);
  placeTimer = setTimeout(() => history.replaceState(null, "", placeOf(part, state)), 250);
}

function placeOf(part, state) {
  return `#${part}?${new URLSearchParams(state).toString().replaceAll("%2C", ",")}`;
}
