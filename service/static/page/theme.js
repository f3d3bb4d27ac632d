// Colours of page.css for what is drawn on a canvas, in light and dark.

const dark = matchMedia("(prefers-color-scheme: dark)");

export const colour = name => getComputedStyle(document.documentElement)
  .getPropertyValue(`--${name}`).trim();

// Draw again when the scheme changes.
export const onThemeChange = draw => dark.addEventListener("change", () => draw());

export const isDark = () => dark.matches;
