// Collects the licenses of the bundled libraries, and copies the style sheet of one of them.
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";

const target = "../workflow_scripts/explore/static";
const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
const bundled = Object.entries(lock.packages).filter(([path, entry]) => path && !entry.dev);
const texts = bundled.map(([path, entry]) => {
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((name) => `${path}/${name}`).find(existsSync);
  if (!file) throw new Error(`${path}: no license file`);
  return `${path.replace("node_modules/", "")} ${entry.version}\n\n${readFileSync(file, "utf8").trim()}\n`;
});
writeFileSync(`${target}/vendor.LICENSES.txt`, texts.join("\n" + "-".repeat(80) + "\n\n"));
copyFileSync("node_modules/uplot/dist/uPlot.min.css", `${target}/vendor.css`);
