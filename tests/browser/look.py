"""What the browser tests look at, and how."""

import re
from dataclasses import dataclass
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from loan_predictor_client import LoanPredictorClient
from shared.contract.application import EXAMPLE, SCORED
from tests.harness import System

_STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@dataclass(frozen=True)
class Shown:
    """A running system, its dashboard, and a client that asks the APIs the same."""

    system: System
    url: str
    batch_url: str
    api: LoanPredictorClient
    logs: Path


def fill_in(page: Page) -> None:
    """Give every input that is scored in the form, by the documented example."""
    expect(page.locator("form[aria-label=Application]")).to_be_visible()
    page.evaluate(
        """(values) => {
          for (const [name, value] of Object.entries(values))
            document.getElementById(name).value = value;
        }""",
        {name: str(EXAMPLE[name]) for name in SCORED if name in EXAMPLE},
    )


def number(where: Page | Locator, name: str) -> str:
    """The text of one value, once it is there."""
    return where.locator(f'[data-value="{name}"]').first.inner_text()


def shown_id(page: Page) -> str:
    """The decision whose record the page links to."""
    link = page.get_by_role("link", name="See the record").get_attribute("href")
    found = re.search(r"[0-9a-f-]{36}", link or "")
    assert found
    return found[0]


def overflows(page: Page) -> bool:
    """Whether the page is wider than its window."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return wide


def assert_accessible(page: Page) -> None:
    """Axe finds nothing on the page as it is."""
    found = Axe().run(page, options={"runOnly": _STANDARDS})
    assert found.violations_count == 0, found.generate_report()
