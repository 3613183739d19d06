/* The state of the view in the address, so that a link restores it: `#explorer?store=0&sample=3&step=12&pin=156,157` */

function readLink(part) {
  const [name, query] = decodeURIComponent(location.hash.slice(1)).split("?");
  return name === part && query !== undefined ? Object.fromEntries(new URLSearchParams(query)) : null;
}

let linkTimer = 0;

/** Delayed until the state has settled: browsers limit how often an address may change. */
function writeLink(part, state) {
  clearTimeout(linkTimer);
  linkTimer = setTimeout(() => history.replaceState(null, "", linkOf(part, state)), 250);
}

function linkOf(part, state) {
  return `#${part}?${new URLSearchParams(state).toString().replaceAll("%2C", ",")}`;
}
