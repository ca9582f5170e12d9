// What a unit finds out about itself, as a part of the tab's own job: the question goes with Generate, the answer stands
// in the job's log.
import {OverlayDialog} from "./overlay.mjs";
import {fail} from "./dialog.mjs";

const ANSWER = /ControlNet unit (\d+): (weight ([\d.]+) (?:is the least|comes nearest)[^\n<]*)/;
const END = /ending control step ([\d.]+) is enough/;
const BAR = /ControlNet unit (\d+) follows its map ([█░]+) ([\d.]+) \(([^\n]*)error map (\d+)\)/;
const SEEN = /ControlNet unit (\d+): ((?:without a prompt the map|what the map is taken|the prompt names)[^\n]*?)(?=\n|ControlNet unit|Time taken|$)/;
const REMEDY = /ControlNet unit (\d+): remedy (\d+): ([^\n[]*) \[([^\n]*?)\]: (adherence [\d.]+, agreement with the prompt (?:[\d.]+|unknown))/g;
const STOPPED = /ControlNet unit (\d+): (stopped before it was found out)/;
const FIELDS = {
    weight: "controlnet_control_weight_slider",
    guidance_start: "controlnet_start_control_step_slider",
    guidance_end: "controlnet_ending_control_step_slider",
    control_mode: "controlnet_control_mode_radio",
    layer_weights: "controlnet_advanced_weighting",
    threshold_a: "controlnet_threshold_A_slider",
    threshold_b: "controlnet_threshold_B_slider",
};
const LISTS = {preprocessor: "controlnet_preprocessor_dropdown", model: "controlnet_model_dropdown"};
const TYPE = "controlnet_type_filter";
const KIND = /^softer kind \((.+)\)$/;
const DRAWN = 200;
const TAKEN = 2000;
const LISTED = 5000;

const pause = (time) => new Promise((over) => setTimeout(over, time));

export class Measuring {
    constructor(unit) {
        this.unit = unit;
        this.asked = false;
        this.ended = null; // the end of the log as it was then: a new log has another, whatever gradio writes beside it meanwhile
        unit.on("find_weight", () => this.ask({what: "weight", target: this.target(), shorten: unit.isTicked("measure_shorten")}));
        unit.on("bounds", () => this.ask({what: "bounds"}));
        unit.on("seen", () => this.look());
        unit.on("measure_stop", () => this.button("interrupt")?.click());
    }

    // Without captions its pictures would be made for nothing.
    look() {
        if (!this.unit.part("seen").closest(".cnet-no-interrogator")) return this.ask({what: "seen"});
        return this.say("What the map is taken for cannot be said: this WebUI has no interrogator that captions.");
    }

    target() {
        return Number(this.unit.part("measure_target")?.querySelector("input")?.value ?? 0.8);
    }

    button(name) {
        return gradioApp().getElementById(`${this.unit.tab}_${name}`);
    }

    ask(question) {
        const field = gradioApp().querySelector(`#${this.unit.tab}_controlnet_study textarea, #${this.unit.tab}_controlnet_study input`);
        if (!field) throw new Error("This page has no field for the question; reload it.");
        this.unit.enable();
        const write = (text) => {
            field.value = text;
            updateInput(field);
        };
        write(JSON.stringify({...question, unit: this.unit.index, nonce: `${Date.now()}-${Math.random()}`}));
        this.say("Trying; the progress is shown beside the picture.");
        this.asked = true;
        this.ended = gradioApp().querySelector(`#html_log_${this.unit.tab} .time`);
        // gradio takes the values over after this event, and the click must find them there
        setTimeout(() => {
            this.button("generate")?.click();
            setTimeout(() => write(""), TAKEN);
        }, 100);
    }

    say(text) {
        const place = this.unit.part("measured");
        if (!place) return;
        let note = place.querySelector(".cnet-note");
        if (!note) {
            note = Object.assign(document.createElement("p"), {className: "cnet-note"});
            note.setAttribute("role", "status");
            place.append(note);
        }
        note.textContent = text;
    }

    // A job has ended: its answer goes into the unit, and its bars can be clicked. Until then the log is the last job's.
    read(log) {
        const text = log.textContent;
        const ended = log.querySelector(".time");
        const asked = this.asked;
        if (asked && (!ended || ended === this.ended)) return;
        this.asked = false;
        const found = text.match(ANSWER);
        if (found && Number(found[1]) === this.unit.index && found[0] !== this.taken) {
            this.taken = found[0];
            this.set("controlnet_control_weight_slider", found[3]);
            const end = text.match(END);
            if (end) this.set("controlnet_ending_control_step_slider", end[1]);
        }
        if (!found) this.taken = null;
        const seen = text.match(SEEN);
        if (seen && Number(seen[1]) === this.unit.index) this.say(seen[2]);
        if (text !== this.offered) this.offer(this.offered = text);
        const lines = this.texts(log).map((node) => this.makeBar(node)).filter(Boolean);
        const stopped = text.match(STOPPED);
        const answers = [found, stopped].filter((one) => one && Number(one[1]) === this.unit.index).map((one) => one[2]);
        if (seen || !(lines.length || asked)) return;
        this.say([...answers, ...lines].join(". ") || "The job ended without an answer; what it says stands under the pictures.");
    }

    // Remedies that were tried, best first: a click takes one.
    offer(text) {
        const place = this.unit.part("measured");
        place?.querySelectorAll(".cnet-remedy").forEach((old) => old.remove());
        for (const [, unit, number, words, settings, told] of text.matchAll(REMEDY)) {
            if (Number(unit) !== this.unit.index || !place) continue;
            const button = Object.assign(document.createElement("button"), {type: "button", className: "cnet-remedy"});
            button.textContent = `${number}. ${words} (${told})`;
            button.addEventListener("click", () => this.take(words, settings).catch(fail));
            place.append(button);
        }
    }

    async take(words, settings) {
        const changes = settings.split("; ").map((setting) => setting.split(" = "));
        const kind = words.match(KIND);
        if (kind) await this.chooseType(kind[1], Object.fromEntries(changes).model);
        for (const [name, value] of changes) {
            if (name === "control_mode") this.check(FIELDS[name], value);
            else if (name in LISTS) await this.choose(LISTS[name], value);
            else this.set(FIELDS[name], value);
        }
    }

    check(id, words) {
        const choices = Array.from(this.unit.part(id)?.querySelectorAll("label") ?? []);
        choices.find((label) => label.textContent.trim() === words)?.querySelector("input")?.click();
    }

    // The lists of a type, and its model, come from the server.
    async chooseType(type, model) {
        if (this.unit.part(`${TYPE}_radio`)) this.check(`${TYPE}_radio`, type);
        else await this.choose(`${TYPE}_dropdown`, type);
        for (const end = Date.now() + LISTED; this.unit.field(LISTS.model).value !== model && Date.now() < end;) await pause(DRAWN);
    }

    // gradio's dropdown takes what is in its list, which is drawn while the field has the focus
    async choose(id, words) {
        const input = this.unit.field(id);
        if (input.value === words) return;
        input.focus();
        await pause(DRAWN);
        const options = Array.from(gradioApp().querySelectorAll("ul.options li"));
        const option = options.find((one) => one.textContent.replace("✓", "").trim() === words);
        option?.dispatchEvent(new MouseEvent("mousedown", {bubbles: true}));
        input.blur();
        if (!option) throw new Error(`"${words}" is not in the list.`);
    }

    texts(log) {
        const walker = document.createTreeWalker(log, NodeFilter.SHOW_TEXT);
        const nodes = [];
        while (walker.nextNode()) nodes.push(walker.currentNode);
        return nodes.filter((node) => !node.parentElement.closest(".cnet-bar"));
    }

    makeBar(node) {
        const found = node.textContent.match(BAR);
        if (!found || Number(found[1]) !== this.unit.index) return null;
        const [, , bar, value, , number] = found;
        const button = Object.assign(document.createElement("button"), {type: "button", className: "cnet-bar"});
        button.title = "Where the picture follows its map, and where not";
        button.setAttribute("aria-label", `${this.unit.name} follows its map ${value}: show where`);
        const full = document.createElement("span");
        full.style.width = `${100 * Number(value)}%`;
        button.append(full);
        button.addEventListener("click", () => this.show(number).catch(fail));
        const rest = node.splitText(node.textContent.indexOf(bar));
        rest.textContent = rest.textContent.slice(bar.length).replace(/; error map \d+\)/, ")").replace(/\(error map \d+\)/, "");
        node.parentNode.insertBefore(button, rest);
        const line = rest.textContent.match(/^ ([\d.]+ \(.*\))/);
        return line && `Adherence ${line[1]}`;
    }

    async show(number) {
        const shown = typeof selected_gallery_index === "function" ? Math.max(selected_gallery_index(), 0) : 0;
        const address = (part) => `${location.pathname.replace(/\/$/, "")}/controlnet/error_map/${number}?shown=${shown}&part=${part}`;
        const parts = await Promise.all(["picture", "map"].map(async (part) => {
            const answer = await fetch(address(part));
            if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `no error map: ${answer.status}`);
            return URL.createObjectURL(await answer.blob());
        }));
        const dialog = new OverlayDialog(`${this.unit.name}: green where the map is followed, red where not`, ...parts);
        return dialog.result.then(() => parts.forEach((part) => URL.revokeObjectURL(part)));
    }

    set(id, value) {
        for (const input of this.unit.part(id)?.querySelectorAll("input, textarea") ?? []) {
            input.value = value;
            updateInput(input);
        }
    }
}
