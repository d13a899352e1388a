"""The page itself: what stands on it, and what happens when the user does something."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports] - only who serves the page needs it
from gradio import themes  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]
from gradio.processing_utils import save_bytes_to_cache  # pyright: ignore[reportMissingImports]

from AnomalyCLIP_lib.decisions import Thresholds
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import IMAGE_EXTENSIONS
from pipeline.reporting.pictures import MOST_OPACITY
from pipeline.web import markup
from pipeline.web.handlers import Handlers, slider_position
from pipeline.web.scoring import MOST_FILES, MOST_MEGABYTES, MOST_PIXELS, Scorer

STEP = 0.005  # of the sliders
SECONDS_KEPT = 3600
MOST_VISITORS = 32
REQUESTS_AT_ONCE = 4  # being scored, picture by picture in turn
THUMBNAIL_SIDE = 160
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
FIXED_WIDTH_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
TOLD_ALOUD = 'element.setAttribute("aria-live", "polite")'
# On a phone the results stand below all else.
BRING_INTO_VIEW = """() => {
    if (window.innerWidth < 768) document.getElementById("results").scrollIntoView({behavior: "smooth"});
}"""
SAVE = """(file) => {
    if (!file) return;
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
}"""


def build(scorer: Scorer, thresholds: Thresholds, reason: str, samples: Sequence[Path]) -> gr.Blocks:
    """The whole page, ready to launch (`launch_options`).

    Args:
        reason: why this model is used.
        samples: pictures that a click scores.
    """
    handlers = Handlers(scorer, thresholds)
    with gr.Blocks(
        title="AnomalyCLIP", analytics_enabled=False, delete_cache=(SECONDS_KEPT // 6, SECONDS_KEPT)
    ) as page:
        results = gr.State(None, time_to_live=SECONDS_KEPT)
        chosen = gr.State(0)
        gr.HTML(markup.introduction(scorer.detector, reason))
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label="Pictures",
                    file_count="multiple",
                    file_types=["image", *sorted(IMAGE_EXTENSIONS)],
                    height=170,
                    elem_id="files",
                )
                gr.HTML(f'<p class="limits">{_limits()}</p>')
                gr.HTML('<h2 class="part">Or click a sample</h2>', visible=bool(samples))
                captioned = [(str(path), path.stem.replace("_", " ")) for path in samples]
                samples_shown = _gallery("Samples", 2, "samples", captioned)
            with gr.Column(scale=2, min_width=320, elem_id="results"):
                trouble = gr.HTML("", elem_id="trouble", js_on_load=TOLD_ALOUD)
                choice = _gallery("Pictures to choose from", 6, "choice", [])
                verdict = gr.HTML(markup.EMPTY, elem_id="verdict", js_on_load=TOLD_ALOUD)
                picture = gr.HTML("", elem_id="picture")
                with gr.Column(visible=False) as controls:
                    with gr.Row():
                        pixel = _slider("Pixel threshold", "for the outline", thresholds.pixel.value, "pixel")
                        image = _slider("Image threshold", "for the score", thresholds.image.value, "image")
                        opacity = _slider("Opacity", "of the heat map", MOST_OPACITY, "opacity")
                    with gr.Row():
                        outlined = gr.Checkbox(
                            True, label="Outline", container=False, elem_id="outlined", min_width=140
                        )
                        reset = gr.Button("Reset the sliders", size="sm", min_width=140, elem_id="reset")
                overview = gr.HTML("", elem_id="overview")
                with gr.Row(visible=False) as offers:
                    save_picture = gr.Button("Save heat map (PNG)", size="sm", elem_id="save_picture")
                    save_map = gr.Button("Save anomaly map (.npy)", size="sm", elem_id="save_map")
                    save_table = gr.Button("Save all results (CSV)", size="sm", elem_id="save_table")
                ready = gr.File(visible=False)

        settings = [image, pixel, opacity, outlined]
        shown = [verdict, picture, overview]
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}

        def score(paths, before, *at, progress=gr.Progress()):  # noqa: B008 - Gradio's way to ask for it
            now, sentences = handlers.score(paths, before, progress)
            scored = now.scored
            several = gr.Gallery(
                [(markup.thumbnail(one, THUMBNAIL_SIDE), f"{one.anomaly_score:.2f} {one.name}") for one in scored],
                visible=len(scored) > 1,
                selected_index=0 if scored else None,
            )
            verdict_now, picture_now, overview_now = handlers.show(now, 0, *at)
            if now.refused and not scored:
                verdict_now = ""  # the sentences say it all
            visible = gr.update(visible=bool(scored))
            return (
                *(now, 0, markup.problems(now.refused, sentences), several, visible, visible),
                *(verdict_now, picture_now, overview_now),
            )

        def choose(event: gr.SelectData, now, *at):
            return event.index, *handlers.show(now, event.index, *at)

        def back(now, position, outline_shown):
            start = (slider_position(thresholds.image.value), slider_position(thresholds.pixel.value), MOST_OPACITY)
            return *start, *handlers.show(now, position, *start, outline_shown)

        def offer(name: str, content: bytes) -> str:
            return save_bytes_to_cache(content, name, ready.GRADIO_CACHE)

        files.change(
            score,
            [files, results, *settings],
            [results, chosen, trouble, choice, controls, offers, *shown],
            show_progress_on=[verdict],
            concurrency_limit=REQUESTS_AT_ONCE,
            api_visibility="private",
        ).then(None, js=BRING_INTO_VIEW, api_visibility="private")

        def take_sample(event: gr.SelectData):
            return [str(samples[event.index])]

        samples_shown.select(take_sample, None, files, **quiet)
        choice.select(choose, [results, *settings], [chosen, *shown], **quiet)
        gr.on(  # one event for all of them: of two, the older answer could come last and stay
            [image.input, pixel.input, opacity.input, outlined.input],
            handlers.show,
            [results, chosen, *settings],
            shown,
            trigger_mode="always_last",
            **quiet,
        )
        reset.click(back, [results, chosen, outlined], [image, pixel, opacity, *shown], **quiet)
        for button, make, needed in (
            (save_picture, handlers.heat_map, [results, chosen, pixel, opacity, outlined]),
            (save_map, handlers.anomaly_map, [results, chosen]),
            (save_table, handlers.table, [results, image, pixel]),
        ):

            def save(*given, make=make):
                try:
                    return offer(*make(*given))
                except InputError as error:
                    raise gr.Error(str(error), print_exception=False) from error

            button.click(save, needed, ready, **quiet).success(None, ready, js=SAVE, api_visibility="private")
    return page.queue(default_concurrency_limit=REQUESTS_AT_ONCE, api_open=False)


def launch_options(samples: Sequence[Path]) -> dict[str, Any]:
    """What `gr.Blocks.launch` needs beside the address: looks, limits, and nothing that calls other hosts."""
    return {
        "share": False,
        "quiet": True,
        "inbrowser": False,
        "ssr_mode": False,
        "run_history": False,
        "footer_links": [],
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "max_file_size": f"{MOST_MEGABYTES}mb",
        "state_session_capacity": MOST_VISITORS,
        "allowed_paths": [str(path) for path in samples],
        "theme": themes.Default(font=FONTS, font_mono=FIXED_WIDTH_FONTS),
        "css_paths": Path(__file__).with_name("page.css"),
    }


def _gallery(label: str, columns: int, name: str, pictures: list[tuple[str, str]]) -> gr.Gallery:
    """Pictures to click; each is a button of its own for those who use the keyboard."""
    return gr.Gallery(
        pictures,
        label=label,
        show_label=False,
        columns=columns,
        fit_columns=False,
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        object_fit="contain",
        visible=bool(pictures),
        elem_id=name,
        elem_classes="pictures",
    )


def _slider(label: str, info: str, value: float, name: str) -> gr.Slider:
    return gr.Slider(
        0, 1, slider_position(value), step=STEP, label=label, info=info, buttons=[], elem_id=name, min_width=200
    )


def _limits() -> str:
    return (
        f"At most {MOST_FILES} pictures at once, of {MOST_MEGABYTES} MB and {MOST_PIXELS / 1e6:.0f} million pixels "
        f"each. They stay on the machine that runs this page, and are deleted within {_minutes()} minutes or when it "
        "ends."
    )


def _minutes() -> int:
    return (SECONDS_KEPT + SECONDS_KEPT // 6) // 60
