"""The parts of an open page that change: regions of HTML that the server fills."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from markupsafe import Markup
from nicegui import ui
from nicegui.events import GenericEventArguments

from loan_predictor_client import (
    AccessDenied,
    ApiError,
    CallFailed,
    InvalidRequest,
    MissingResource,
    UnsendableCall,
)
from services.dashboard.sessions import SignedOut
from services.dashboard.templating import NOTHING, part
from shared.observability.logs import get_logger

RETRY_S: Final = 2.0
"""How soon a page tries again after a service did not answer."""

_FORM_VALUES: Final = """(event) => {
  // The browser sends a form with an address of its own there.
  if (event.target.hasAttribute("action")) return;
  event.preventDefault();
  emit(Object.fromEntries(new FormData(event.target, event.submitter)));
}"""
_CHANGED: Final = "(event) => emit(event.target.name, event.target.value)"
_PRESSED: Final = """(event) => {
  const pressed = event.target.closest("[data-press]");
  if (pressed) emit(pressed.dataset.press);
}"""
_log = get_logger(__name__)

_T = TypeVar("_T")
Values = dict[str, str]


class Region:
    """A part of the page. ``spoken`` regions are read out by a screen reader when they change.

    While a form or a button in it is handled, the region is shown as busy and takes no other one.
    """

    def __init__(self, name: str, content: Markup = NOTHING, *, spoken: bool = False) -> None:
        # Not sanitized: all content comes from templates, which escape every value.
        self._element = ui.html(content, sanitize=False).mark(name).props(f"data-region={name}")
        self._element.classes("lp-region")
        self._busy = False
        if spoken:
            self._element.props("aria-live=polite")

    def show(self, content: Markup) -> None:
        """Replace the content."""
        self._element.set_content(content)

    def on_submit(self, handle: Callable[[Values], Awaitable[None]]) -> None:
        """Call ``handle`` with the values of a form in the region, its button's among them."""

        async def submitted(event: GenericEventArguments) -> None:
            values = {str(name): str(value) for name, value in event.args.items()}
            await self._alone(handle, values)

        self._element.on("submit", submitted, js_handler=_FORM_VALUES)

    def on_change(self, handle: Callable[[str, str], Awaitable[None]]) -> None:
        """Call ``handle`` with the name and the value of a field in the region that was changed."""

        async def changed(event: GenericEventArguments) -> None:
            name, value = event.args
            await handle(str(name), str(value))

        self._element.on("change", changed, js_handler=_CHANGED)

    def on_press(self, handle: Callable[[str], Awaitable[None]]) -> None:
        """Call ``handle`` with the ``data-press`` of a button in the region."""

        async def pressed(event: GenericEventArguments) -> None:
            await self._alone(handle, str(event.args))

        self._element.on("click", pressed, js_handler=_PRESSED)

    async def _alone(self, handle: Callable[[_T], Awaitable[None]], what: _T) -> None:
        # A double click must not decide twice.
        if self._busy:
            return
        self._busy = True
        self._element.classes("lp-busy").props("aria-busy=true")
        try:
            await handle(what)
        finally:
            self._busy = False
            self._element.classes(remove="lp-busy").props(remove="aria-busy")


class Loader:
    """Fills a region from the services, again every ``every_s`` seconds if that is given.

    While a service does not answer, the page says so and tries again by itself; content that was
    loaded before stays, marked as old.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[Markup]],
        *,
        every_s: float | None = None,
    ) -> None:
        self._fetch = fetch
        self._every_s = every_s
        self._notice = Region(f"{name}-notice", spoken=True)
        self.region = Region(name, loading())
        self._loaded = False
        ui.timer(0, self.load, once=True)

    async def load(self) -> None:
        """Load once, and schedule the next time."""
        again_s = self._every_s
        try:
            content = await self._fetch()
        except SignedOut:
            self.region.show(signed_out())
            return
        except CallFailed as error:
            self._notice.show(explain(error, retried=True, stale=self._loaded))
            if not self._loaded:
                self.region.show(NOTHING)
            if may_recover(error):
                again_s = RETRY_S
        else:
            self._notice.show(NOTHING)
            self.region.show(content)
            self._loaded = True
        if again_s is not None:
            ui.timer(again_s, self.load, once=True)


def loading() -> Markup:
    """The placeholder of content that is being loaded."""
    return part("notices", "loading")


def signed_out() -> Markup:
    """The notice on a page whose session has ended."""
    return part("notices", "signed_out")


def may_recover(error: CallFailed) -> bool:
    """Whether the same call may succeed later."""
    return not isinstance(error, AccessDenied | InvalidRequest | MissingResource | UnsendableCall)


def explain(error: CallFailed, *, retried: bool = False, stale: bool = False) -> Markup:
    """A failed call in words: ``retried`` by the page itself, ``stale`` if older content stays."""
    if isinstance(error, AccessDenied):
        return part("notices", "denied", error=error)
    if isinstance(error, MissingResource):
        return part("notices", "missing", error=error)
    if isinstance(error, InvalidRequest):
        return part("notices", "invalid", error=error)
    _log.warning("a call failed", error=str(error))
    if isinstance(error, ApiError):
        return part("notices", "unavailable", error=error)
    return part("notices", "unreachable", retried=retried, stale=stale)
