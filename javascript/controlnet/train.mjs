// The page "Train": while a training runs and its page is seen, the figures are asked for every few seconds.
const SECONDS = 3;

export function connectTrain() {
    const state = gradioApp().getElementById("controlnet_train_state");
    const refresh = gradioApp().getElementById("controlnet_train_refresh");
    if (!state || !refresh || state.dataset.cnetReady) return;
    state.dataset.cnetReady = "yes";
    let waiting = 0;
    const later = () => {
        clearTimeout(waiting);
        if (!state.querySelector("[data-state=running]")) return;
        waiting = setTimeout(() => refresh.offsetParent && !document.hidden ? refresh.click() : later(), 1000 * SECONDS);
    };
    new MutationObserver(later).observe(state, {childList: true, subtree: true});
    later();
}
