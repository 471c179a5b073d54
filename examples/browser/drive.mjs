/**
 * Drive the page in a headless browser, as a person would, and print what it shows.
 *
 *     node drive.mjs STEPS.json > shown.json
 *
 * STEPS.json is a list of {"model": FILE}, {"sound": FILE}, {"drop": FILE} or {"screenshot": FILE, "dark": true,
 * "width": 400}; after each there is one line of JSON. CHROMIUM names the browser (/usr/bin/chromium).
 */

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const steps = JSON.parse(readFileSync(process.argv[2], "utf8"));
const server = await serve(0);
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
const page = await browser.newPage({ viewport: { width: 900, height: 1200 } });
const foreign = [];
const faults = [];
await page.route("**", (route) => {
  // Nothing but this page's own server may be asked: the page must work offline.
  if (route.request().url().startsWith(`${origin}/`)) return route.continue();
  foreign.push(route.request().url());
  return route.abort();
});
page.on("pageerror", (problem) => faults.push(String(problem)));
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));

async function settle() {
  await page.waitForFunction(() => document.body.dataset.state !== "busy", null, { timeout: 240_000 });
}

async function drop(file) {
  const transfer = await page.evaluateHandle(
    ([name, letters]) => {
      const holder = new DataTransfer();
      holder.items.add(new File([Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0))], name));
      return holder;
    },
    [basename(file), readFileSync(file).toString("base64")],
  );
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
}

async function take(step) {
  if (step.model) await page.setInputFiles("#model-file", step.model);
  if (step.sound) await page.setInputFiles("#sound-file", step.sound);
  if (step.drop) await drop(step.drop);
  await settle();
  if (step.screenshot) {
    await page.emulateMedia({ colorScheme: step.dark ? "dark" : "light", reducedMotion: "reduce" });
    await page.setViewportSize({ width: step.width ?? 900, height: 1000 });
    await page.screenshot({ path: step.screenshot, fullPage: true });
  }
  return page.evaluate(() => {
    const shown = (id) => (document.getElementById(id).hidden ? null : document.getElementById(id).innerText);
    const visible = document.getElementById("answer").hidden ? null : window.answer;
    return { answer: visible, best: visible && shown("best"), rest: visible && shown("rest"), error: shown("error"), facts: shown("facts"),
             rows: visible ? document.querySelectorAll("#ranked li").length : 0,
             enabled: !document.getElementById("sound-file").disabled };
  });
}

await page.goto(`${origin}/`);
await page.waitForFunction(() => document.body.dataset.state === "ready");
for (const step of steps) console.log(JSON.stringify({ ...(await take(step)), foreign, faults }));
await browser.close();
server.close();
