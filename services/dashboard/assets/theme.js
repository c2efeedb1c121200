// Before the first paint: the visitor's choice of light or dark, else the system's.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) print();
  const copied = event.target.closest("[data-copy]");
  // A browser offers its clipboard to secure pages only.
  if (copied) navigator.clipboard?.writeText(copied.dataset.copy)
    .then(() => { copied.textContent = "Copied"; });
  if (!event.target.closest("[data-toggle-theme]")) return;
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", dark ? "light" : "dark");
});
