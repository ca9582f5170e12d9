// The accordion of one tab: how many of its units are on, and what the checkpoint's change means to them.
import {reachAccordions} from "./keys.mjs";
import {unitError} from "./problems.mjs";

export class Panel {
    constructor(root, tab) {
        this.root = root;
        this.tab = tab;
        this.units = [];
        this.badge = document.createElement("span");
        this.badge.className = "cnet-badge";
        this.badge.hidden = true;
        root.querySelector("#controlnet .label-wrap > span")?.after(this.badge);
        this.checkpoint = null;
        if (typeof onOptionsChanged === "function") onOptionsChanged(() => this.checkpointMayHaveChanged());
        // Only the panel's own page is watched, and only where gradio writes values without an event of the browser.
        this.pending = false;
        new MutationObserver(() => this.refreshSoon()).observe(root, {
            childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["src", "class"],
        });
        const log = gradioApp().getElementById(`html_log_${tab}`);
        if (log) new MutationObserver(() => this.readLog(log)).observe(log, {childList: true, subtree: true, characterData: true});
        const sizes = ["width", "height"].map((side) => gradioApp().getElementById(`${tab}_${side}`)); // what Pixel Perfect asks
        for (const part of [root, ...sizes]) {
            for (const kind of ["input", "change", "click"]) part?.addEventListener(kind, () => this.refreshSoon());
        }
    }

    tabButtons() {
        const nav = this.root.querySelector(`#${this.tab}_controlnet_tabs > .tab-nav, #${this.tab}_controlnet_tabs [role="tablist"]`);
        return nav ? Array.from(nav.querySelectorAll(":scope > button")) : [];
    }

    open() {
        requestAnimationFrame(() => this.root.scrollIntoView({block: "start"}));
        const label = this.root.querySelector("#controlnet .label-wrap");
        if (label && !label.classList.contains("open")) label.click();
    }

    refreshSoon() {
        if (this.pending) return;
        this.pending = true;
        requestAnimationFrame(() => {
            this.pending = false;
            this.refresh();
        });
    }

    // What a job ended with is said in its unit too, where it can be mended; the next job that ends well takes it away.
    readLog(log) {
        const text = log.querySelector(".error")?.textContent ?? "";
        const error = unitError(text);
        if (!text && !log.textContent.trim()) return;
        for (const unit of this.units) unit.measuring.read(log);
        for (const unit of this.units) if (unit.problems.shown?.origin === "job") unit.problems.clear();
        if (error) this.units[error.unit]?.problems.show(error.field, error.text, "job");
    }

    // gradio names a slider's number by its place only; the preprocessor changes what it means.
    nameNumbers() {
        for (const number of this.root.querySelectorAll('input[type="number"]')) {
            const block = number.closest(".block");
            const name = block?.querySelector("label span, span[data-testid='block-info']")?.textContent.trim();
            if (name && number.getAttribute("aria-label") !== name) number.setAttribute("aria-label", name);
        }
    }

    // gradio 4 leaves the picture's own buttons and the picture without a name.
    namePictures() {
        for (const button of this.root.querySelectorAll("button:not([aria-label]):not([title])")) {
            if (button.textContent.trim()) continue;
            const uploads = button.querySelector('input[type="file"]');
            button.setAttribute("aria-label", uploads ? "Upload a picture" : "Enlarge the picture");
        }
        for (const image of this.root.querySelectorAll("img:not([alt])")) image.alt = "";
    }

    refresh() {
        this.nameNumbers();
        this.namePictures();
        reachAccordions(this.root);
        const buttons = this.tabButtons();
        this.units.forEach((unit, index) => unit.show(buttons[index]));
        for (const unit of this.units) unit.canvas.follow();
        const active = this.units.filter((unit) => unit.enabled).length;
        const text = active ? `${active} unit${active > 1 ? "s" : ""}` : "";
        if (this.badge.textContent !== text) this.badge.textContent = text;
        this.badge.hidden = !active;
    }

    checkpointMayHaveChanged() {
        const now = typeof opts === "object" ? opts.sd_model_checkpoint : null;
        if (this.checkpoint !== null && now !== this.checkpoint) this.units.forEach((unit) => unit.recheck());
        this.checkpoint = now ?? null;
    }
}
