// What widgets are for, said when the pointer rests on them: the scripts' own words, and these by label.
"use strict";

const HINTS = {
    "Sampling method": "The formula by which noise becomes a picture",
    "Schedule type": "How the amount of noise falls from step to step",
    "Sampling steps": "How often the picture is improved; more takes longer",
    "Width": "Of the picture in pixels", "Height": "Of the picture in pixels",
    "Batch count": "How many batches are made, one after the other",
    "Batch size": "How many pictures are made at once (takes more memory)",
    "CFG Scale": "How strictly the picture follows the prompt; high values burn it",
    "Seed": "The number that the noise comes from: the same seed and settings give the same picture; -1 is another every time",
    "Variation": "A little of another seed's noise",
    "Variation seed": "The seed of the noise that is mixed in; -1 is another every time",
    "Variation strength": "0: none of the variation's noise; 1: nothing else",
    "Denoising strength": "How much of the picture is made anew: 0 changes nothing, 1 everything",
    "Hires. fix": "Makes a small picture first, enlarges it, and draws its details in a second pass",
    "Hires steps": "Steps of the second pass; 0: as many as in the first",
    "Upscale by": "How much larger the second pass is",
    "Upscaler": "What enlarges the picture between the passes",
    "Mask blur": "How soft the mask's edge is, in pixels",
    "Mask mode": "Whether what is masked is made anew, or all else",
    "Masked content": "What lies under the mask when sampling begins",
    "Inpaint area": "The whole picture at its size, or the masked part alone enlarged to it",
    "Only masked padding, pixels": "How much around the masked part is seen with it",
    "Resize mode": "How a picture of another shape is brought to width and height",
    "Generate": "Make the picture (Ctrl+Enter)",
    "Interrupt": "Stop and keep what is there (Esc)",
    "Skip": "Stop this picture and go on with the next",
};

function showHints() {
    for (const {props} of window.gradio_config?.components ?? []) {
        const element = props?.webui_tooltip && props.elem_id ? gradioApp().getElementById(props.elem_id) : null;
        if (element && !element.title) element.title = props.webui_tooltip;
    }
    for (const element of gradioApp().querySelectorAll("label > span, label > .head span, span[data-testid='block-info'], .label-wrap > span, button")) {
        const hint = HINTS[element.textContent.trim()];
        if (hint && !element.title) element.title = hint;
    }
}

let hintsShown = 0;
onUiLoaded(showHints);
onAfterUiUpdate(() => { // widgets come one after the other while the page is built
    if (hintsShown < 8) showHints();
    hintsShown += 1;
});
onUiTabChange(showHints);
