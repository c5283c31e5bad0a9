// Light or dark as chosen before; run before anything is painted, so that nothing flashes.
"use strict";

const THEME = "dupmae-theme";

function chosenTheme() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null; // storage may be switched off
  }
}

function showTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

showTheme(chosenTheme());

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme-button");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const tell = () => button.setAttribute("aria-pressed", String(isDark()));
  system.addEventListener("change", tell);
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    showTheme(theme);
    tell();
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      // It then holds until the page is left.
    }
  });
  tell();
});
