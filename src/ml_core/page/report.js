"use strict";
// What moves on a page: the slider of an operating point, tables that sort, the part being read.
// Without this script the page says the same things and stands still. It loads nothing.
(() => {
  // ---- numbers as ml_core.page.text writes them -------------------------------------------------
  const UNDEFINED = "–";
  const decimal = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : UNDEFINED);
  const count = (value) => value.toLocaleString("en-US");
  const percent = (value) => {
    if (!Number.isFinite(value)) return UNDEFINED;
    return value > 0 && 100 * value < 0.05 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`;
  };
  const write = (node, value, text) => {
    node.textContent = text;
    node.setAttribute("value", Number.isFinite(value) ? String(value) : "");
  };

  // ---- metrics from counts, as ml_core.metrics computes them -------------------------------------
  const ratio = (part, whole) => (whole > 0 ? part / whole : NaN);

  // Wilson, JASA 22 (1927).
  function wilson(successes, trials, z) {
    if (trials === 0) return [NaN, NaN];
    const share = successes / trials;
    const centre = (share + (z * z) / (2 * trials)) / (1 + (z * z) / trials);
    const spread = Math.sqrt(z * z * (share * (1 - share) + (z * z) / (4 * trials)) / trials);
    const reach = spread / (1 + (z * z) / trials);
    return [successes === 0 ? 0 : centre - reach, successes === trials ? 1 : centre + reach];
  }

  // The root of `f` between `low` and `high`, where its signs differ; to the last bit.
  function root(f, low, high) {
    const below = f(low) > 0;
    for (let step = 0; step < 100; step += 1) {
      const middle = (low + high) / 2;
      if (middle === low || middle === high) break;
      if (f(middle) > 0 === below) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  // The score interval of F-beta: see f_beta_interval in ml_core.metrics for where it is from.
  function fBetaInterval(tp, fp, fn, beta, z) {
    if (tp + fp + fn === 0) return [NaN, NaN];
    const counts = [tp, fp, fn];
    const total = tp + fp + fn;
    const weight = 1 + beta * beta;
    const sum = (term) => counts.reduce((all, each, i) => all + term(each, i), 0);
    const excess = (f) => {
      const gains = [weight * (1 - f), -f, -beta * beta * f];
      const gained = sum((each, i) => each * gains[i]);
      const emptied = gained > 0 ? 2 : 0; // where the gain is smallest (beta is at least 1), or largest
      const largestTilt = -(1 - 1e-12) / gains[emptied];
      const meanGain = (tilt) => sum((each, i) => gains[i] * each / (1 + tilt * gains[i]));
      const crosses = meanGain(0) * meanGain(largestTilt) <= 0;
      const tilt = crosses
        ? root(meanGain, Math.min(0, largestTilt), Math.max(0, largestTilt))
        : largestTilt;
      const shares = counts.map((each, i) => each / (total * (1 + tilt * gains[i])));
      shares[emptied] += 1 - shares.reduce((all, each) => all + each, 0);
      const variance = shares.reduce((all, share, i) => all + gains[i] * gains[i] * share, 0);
      return gained * gained - z * z * total * variance;
    };
    const value = weight * tp / (weight * tp + fp + beta * beta * fn);
    const low = tp > 0 ? root(excess, 1e-12, Math.min(value, 1 - 1e-12)) : 0;
    const high = fp + fn > 0 ? root(excess, Math.max(value, 1e-12), 1 - 1e-12) : 1;
    return [low, high];
  }

  function ratesOf({ tn, fp, fn, tp }, z) {
    const fBeta = (beta) => ratio((1 + beta * beta) * tp, (1 + beta * beta) * tp + fp + beta * beta * fn);
    const proportion = (part, whole) => [ratio(part, whole), ...wilson(part, whole, z)];
    return {
      recall: proportion(tp, tp + fn),
      specificity: proportion(tn, tn + fp),
      precision: proportion(tp, tp + fp),
      f2: [fBeta(2), ...fBetaInterval(tp, fp, fn, 2, z)],
      f1: [fBeta(1), ...fBetaInterval(tp, fp, fn, 1, z)],
      accuracy: proportion(tp + tn, tp + fp + fn + tn),
    };
  }

  // ---- the operating point -----------------------------------------------------------------------
  function operate(panel) {
    const numbers = (name) => panel.dataset[name].split(" ").map(Number);
    const [thresholds, tps, fps] = ["thresholds", "tp", "fp"].map(numbers);
    const [positives, negatives, frozen, z] = ["positives", "negatives", "frozen", "quantile"].map(
      (name) => Number(panel.dataset[name]),
    );
    const all = (selector) => panel.querySelectorAll(selector);
    const slider = panel.querySelector("input[type=range]");
    const status = panel.querySelector("[role=status]");
    let speaking = 0;

    const show = (position) => {
      const [tp, fp] = [tps[position], fps[position]];
      const cells = { tn: negatives - fp, fp, fn: positives - tp, tp };
      const rates = ratesOf(cells, z);
      showThreshold(thresholds[position], position === frozen);
      for (const [name, value] of Object.entries(cells)) showCell(name, value);
      for (const [name, row] of Object.entries(rates)) showRate(name, row);
      showPoint("roc", 1 - rates.specificity[0], rates.recall[0]);
      showPoint("precision_recall", rates.recall[0], rates.precision[0]);
      slider.setAttribute("aria-valuetext", decimal(thresholds[position], 4));
      window.clearTimeout(speaking);
      speaking = window.setTimeout(() => speak(thresholds[position], cells, rates), 400);
    };
    const showThreshold = (threshold, isFrozen) => {
      for (const node of all("[data-threshold]")) write(node, threshold, decimal(threshold, 4));
      for (const node of all("[data-when]")) node.hidden = (node.dataset.when === "frozen") !== isFrozen;
      for (const button of all("button[data-position]")) {
        button.setAttribute("aria-pressed", String(thresholds[button.dataset.position] === threshold));
      }
      for (const line of all(".histogram .threshold")) {
        line.setAttribute("x1", threshold);
        line.setAttribute("x2", threshold);
      }
      for (const rect of all(".histogram .called")) rect.setAttribute("x", threshold);
      for (const rect of all(".histogram .passed")) rect.setAttribute("width", 1 + threshold);
    };
    const showCell = (name, value) => {
      for (const node of all(`data[data-cell=${name}]`)) write(node, value, count(value));
      const share = ratio(value, name === "tp" || name === "fn" ? positives : negatives);
      for (const node of all(`td[data-cell=${name}]`)) node.style.setProperty("--share", share || 0);
      for (const node of all(`[data-share=${name}]`)) node.textContent = percent(share);
    };
    const showRate = (name, [value, low, high]) => {
      const row = panel.querySelector(`[data-rate=${name}]`);
      const shown = { value, low, high };
      for (const node of row.querySelectorAll("data")) {
        write(node, shown[node.dataset.end], decimal(shown[node.dataset.end], 3));
      }
      const at = (share) => `${100 * (share || 0)}%`;
      const [bar, dot] = [row.querySelector(".bar"), row.querySelector(".dot")];
      bar.setAttribute("x1", at(low));
      bar.setAttribute("x2", at(high));
      dot.setAttribute("cx", at(value));
      for (const mark of [bar, dot]) mark.classList.toggle("nowhere", !Number.isFinite(value));
    };
    const showPoint = (name, x, y) => {
      const picture = panel.querySelector(`[data-figure=${name}] .point`);
      if (picture === null) return;
      const isSomewhere = Number.isFinite(x) && Number.isFinite(y);
      picture.classList.toggle("nowhere", !isSomewhere);
      if (!isSomewhere) return;
      const [dot, across, down] = [".dot", ".across", ".down"].map((each) => picture.querySelector(each));
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", y);
      across.setAttribute("d", `M0 ${y}H${x}`);
      down.setAttribute("d", `M${x} 0V${y}`);
    };
    const speak = (threshold, cells, rates) => {
      status.textContent = `Threshold ${decimal(threshold, 4)}: ${count(cells.fn)} tumours missed, `
        + `${count(cells.fp)} false alarms, recall ${decimal(rates.recall[0], 3)}, `
        + `precision ${decimal(rates.precision[0], 3)}.`;
    };

    slider.addEventListener("input", () => show(Number(slider.value)));
    for (const button of all("button[data-position]")) {
      button.addEventListener("click", () => {
        slider.value = button.dataset.position;
        show(Number(slider.value));
      });
    }
    for (const control of all("[data-control]")) control.hidden = false;
    slider.value = frozen; // a browser that goes back to the page would keep where it was
  }

  // ---- tables that sort --------------------------------------------------------------------------
  // What a cell sorts by: a number where every defined cell of the column is one, else its text.
  function keyOf(cell) {
    if (cell === undefined) return "";
    if (cell.dataset.sort !== undefined) return cell.dataset.sort;
    if (cell.querySelector(".undefined") !== null) return "";
    const exact = cell.querySelector("data");
    const text = exact === null ? cell.textContent.trim() : exact.getAttribute("value");
    return text === UNDEFINED ? "" : text;
  }
  const number = (text) => (text === "" ? NaN : Number(text.replaceAll(",", "").replace("−", "-")));

  function sortBy(table, column, direction) {
    // Rows that share a <tbody> with others are those of one entry, and move together.
    const bodies = [...table.tBodies];
    if (bodies.length === 0) return;
    const entries = bodies.length > 1 ? bodies : [...bodies[0].rows];
    const parent = bodies.length > 1 ? table : bodies[0];
    const rowOf = (entry) => (entry.rows === undefined ? entry : entry.rows[0]);
    const keyed = entries.map((entry) => ({ entry, key: keyOf(rowOf(entry).cells[column]) }));
    const known = keyed.filter(({ key }) => key !== "");
    const isNumeric = known.every(({ key }) => !Number.isNaN(number(key)));
    const sign = direction === "ascending" ? 1 : -1;
    known.sort((a, b) => sign * (isNumeric
      ? number(a.key) - number(b.key)
      : a.key.localeCompare(b.key, "en", { numeric: true })));
    const unknown = keyed.filter(({ key }) => key === "");
    const end = bodies[bodies.length - 1].nextSibling;
    for (const { entry } of [...known, ...unknown]) {
      if (parent === table) table.insertBefore(entry, end);
      else parent.append(entry);
    }
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      if (head.tagName !== "TH" || head.dataset.unsortable !== undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.dataset.first || "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const direction = head.getAttribute("aria-sort") === first ? other : first;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", direction);
        sortBy(table, column, direction);
      });
    });
  }

  // ---- the part being read -----------------------------------------------------------------------
  function follow(bar) {
    const links = [...bar.querySelectorAll("a[href^='#']")];
    const parts = links.map((link) => document.getElementById(link.hash.slice(1)));
    const mark = () => {
      const line = bar.getBoundingClientRect().bottom + 24;
      let current = -1;
      parts.forEach((part, i) => {
        if (part !== null && part.getBoundingClientRect().top <= line) current = i;
      });
      links.forEach((link, i) => {
        if (i === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
      const list = bar.querySelector("ul");
      if (current >= 0 && list.scrollWidth > list.clientWidth) {
        list.scrollLeft = links[current].offsetLeft - list.clientWidth / 3;
      }
    };
    let waiting = false;
    window.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      window.requestAnimationFrame(() => {
        waiting = false;
        mark();
      });
    }, { passive: true });
    mark();
  }

  document.querySelectorAll("[data-operating]").forEach(operate);
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("nav.bar").forEach(follow);
})();
