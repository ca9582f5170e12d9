// The page functions that extensions' scripts call, and the job progress.
"use strict";

var opts = {};
const uiUpdateCallbacks = [], uiAfterUpdateCallbacks = [], uiLoadedCallbacks = [], uiTabChangeCallbacks = [];
const optionsChangedCallbacks = [], optionsAvailableCallbacks = [];
let optionsReady = false, uiLoaded = false, currentTab = null, afterUpdateTimer = null;

function gradioApp() {
    const element = document.getElementsByTagName("gradio-app")[0];
    return element && element.shadowRoot ? element.shadowRoot : document;
}

function get_uiCurrentTab() {
    return gradioApp().querySelector("#tabs > .tab-nav > button.selected");
}

function get_uiCurrentTabContent() {
    return gradioApp().querySelector('#tabs > .tabitem[id^=tab_]:not([style*="display: none"])');
}

function onUiUpdate(callback) { uiUpdateCallbacks.push(callback); }
function onAfterUiUpdate(callback) { uiAfterUpdateCallbacks.push(callback); }
function onUiLoaded(callback) { uiLoadedCallbacks.push(callback); }
function onUiTabChange(callback) { uiTabChangeCallbacks.push(callback); }
function onOptionsChanged(callback) { optionsChangedCallbacks.push(callback); }

function onOptionsAvailable(callback) {
    if (optionsReady) callback();
    else optionsAvailableCallbacks.push(callback);
}

function runCallbacks(callbacks, argument) {
    for (const callback of callbacks) {
        try {
            callback(argument);
        } catch (error) {
            console.error("error running callback", callback, error);
        }
    }
}

function uiElementIsVisible(element) {
    for (let e = element; e && e !== document; e = e.parentElement) {
        if (getComputedStyle(e).display === "none") return false;
    }
    return true;
}

function uiElementInSight(element) {
    const box = element.getBoundingClientRect();
    return box.top < window.innerHeight && box.bottom > 0;
}

function updateInput(target) {
    const event = new Event("input", {bubbles: true});
    Object.defineProperty(event, "target", {value: target});
    target.dispatchEvent(event);
}

function get_tab_index(tabId) {
    const buttons = gradioApp().getElementById(tabId).querySelector("div").querySelectorAll("button");
    return Math.max(0, Array.from(buttons).findIndex((x) => x.classList.contains("selected")));
}

function all_gallery_buttons() {
    return Array.from(gradioApp().querySelectorAll('[id$="_gallery"] .thumbnails > .thumbnail-item')).filter(
        (x) => x.parentElement.offsetParent);
}

function selected_gallery_index() {
    return all_gallery_buttons().findIndex((x) => x.classList.contains("selected"));
}

function switch_to_tab(name) { gradioApp().querySelectorAll("#tabs > .tab-nav > button").forEach((x) => {
    if (x.textContent.trim() === name) x.click();
}); }
function switch_to_txt2img() { switch_to_tab("txt2img"); return Array.from(arguments); }
function switch_to_img2img() { switch_to_tab("img2img"); return Array.from(arguments); }

const localSet = (key, value) => { try { localStorage.setItem(key, value); } catch (error) { console.warn(error); } };
const localGet = (key, fallback) => { try { return localStorage.getItem(key) ?? fallback; } catch (error) { return fallback; } };
const localRemove = (key) => { try { localStorage.removeItem(key); } catch (error) { console.warn(error); } };
const randomId = () => "task(" + Math.random().toString(36).slice(2, 12) + ")";

// Jobs

function submitJob(tab, values) {
    const result = Array.from(values);
    const id = randomId();
    followJob(tab, id);
    result[0] = id;
    // gradio gives the five outputs too: the old pictures need not travel, and gradio 4 takes a list that is longer than
    // the inputs for one without states, and shifts everything behind the first of them
    return result.slice(0, -5);
}

function submit() { return submitJob("txt2img", arguments); }
function submit_img2img() { return submitJob("img2img", arguments); }

// Seconds as "ETA: 1:05"; "" where nothing is known yet, or it is over in a moment.
function remaining(seconds) {
    if (!(seconds > 1)) return "";
    const whole = Math.round(seconds);
    return " ETA: " + (whole < 60 ? whole + "s" : Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0"));
}

async function followJob(tab, id) {
    const container = gradioApp().getElementById(tab + "_gallery_container");
    const bar = document.createElement("div"), fill = document.createElement("div"), preview = document.createElement("img");
    bar.className = "host-progress";
    preview.className = "host-preview";
    bar.appendChild(fill);
    container.parentElement.insertBefore(bar, container);
    container.parentElement.insertBefore(preview, container);
    document.body.classList.add("generating");
    let shown = -1;
    const title = document.title.replace(/^\[.*?\] /, "");
    const start = Date.now();
    try {
        for (;;) {
            await new Promise((done) => setTimeout(done, 500));
            const query = {id_task: id, id_live_preview: shown};
            const response = await fetch("./internal/progress", {
                method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(query)});
            const state = await response.json();
            if (state.completed || (!state.active && !state.queued && Date.now() - start > 3000)) break;
            const percent = Math.round((state.progress || 0) * 100);
            fill.style.width = percent + "%";
            const told = state.queued ? "In the queue" : percent + "%" + remaining(state.eta);
            fill.textContent = state.textinfo || told;
            document.title = `[${told}] ${title}`;
            if (state.live_preview) {
                preview.src = state.live_preview;
                shown = state.id_live_preview;
            }
        }
    } catch (error) {
        console.error(error);
    } finally {
        bar.remove();
        preview.remove();
        document.title = title;
        document.body.classList.remove("generating");
    }
}

function restart_reload() {
    document.body.innerHTML = "<h1 style='text-align:center;margin-top:20vh'>Reloading...</h1>";
    const attempt = () => fetch("./internal/ping").then((x) => (x.ok ? location.reload() : setTimeout(attempt, 500)),
        () => setTimeout(attempt, 500));
    setTimeout(attempt, 2500);
    return [];
}

async function loadOptions() {
    const response = await fetch("./internal/options");
    if (!response.ok) return;
    opts = await response.json();
    const first = !optionsReady;
    optionsReady = true;
    if (first) runCallbacks(optionsAvailableCallbacks);
    runCallbacks(optionsChangedCallbacks);
}

// Watching the page

document.addEventListener("DOMContentLoaded", () => {
    const observer = new MutationObserver((mutations) => {
        if (!uiLoaded && gradioApp().querySelector("#txt2img_prompt")) {
            uiLoaded = true;
            runCallbacks(uiLoadedCallbacks);
            loadOptions();
        }
        runCallbacks(uiUpdateCallbacks, mutations);
        clearTimeout(afterUpdateTimer);
        afterUpdateTimer = setTimeout(() => runCallbacks(uiAfterUpdateCallbacks), 200);
        const tab = get_uiCurrentTab();
        if (tab && tab !== currentTab) {
            currentTab = tab;
            runCallbacks(uiTabChangeCallbacks);
        }
    });
    observer.observe(gradioApp(), {childList: true, subtree: true});
});
