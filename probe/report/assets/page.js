/* Start of the page. */

async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    // Some browsers deny the clipboard to a file from disk.
    prompt("Copy this:", text);
  }
  setTimeout(() => { button.textContent = before; }, 1200);
}

async function start() {
  for (const button of document.querySelectorAll(".source .copy"))
    button.addEventListener("click", () => copyText(button.previousElementSibling.textContent, button));
  startPlots();
  const stores = JSON.parse(document.getElementById("stores").textContent);
  if (stores.length) {
    const explorer = new Explorer(stores);
    addEventListener("hashchange", () => readLink("explorer") && explorer.restore());
    await explorer.restore();
  }
  if (document.getElementById("blob-rag")) new Rag(JSON.parse(await inflateText("rag")));
  document.documentElement.dataset.ready = "yes";
}

start();
