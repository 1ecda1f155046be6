// Light, dark, or as the system has it.
const kept = "cepa-theme";
const themes = [["auto", "Auto", "◐", "as the system has them"], ["light", "Light", "☀", "light"], ["dark", "Dark", "☾", "dark"]];

// startTheme takes up what was chosen before, and has the button go on to the next.
export function startTheme(button, icon, name) {
  let at = 0;
  try { at = Math.max(0, themes.findIndex((t) => t[0] === localStorage.getItem(kept))); } catch { /* no storage: as the system */ }
  const set = () => {
    const [key, word, sign, spoken] = themes[at];
    document.documentElement.dataset.theme = key;
    icon.textContent = sign;
    name.textContent = word;
    button.setAttribute("aria-label", `Colours: ${spoken}`);
  };
  button.addEventListener("click", () => {
    at = (at + 1) % themes.length;
    try { localStorage.setItem(kept, themes[at][0]); } catch { /* as above */ }
    set();
  });
  set();
}
