"""A person who has a keyboard and no mouse, and sees where the focus is.

Nothing here clicks, and nothing is filled by a selector: Tab goes to an element by the name that a screen
reader says, and what is typed goes where the focus is.
"""

from __future__ import annotations

from typing import Any

from playwright.async_api import CDPSession, Locator, Page, expect

#: More stops than any page has.
MAX_STOPS = 150
#: Where the focus is seen: an outline on the element, or on the row that it stands for.
_IS_SEEN = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect();
  const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth);
  const top = Math.max(box.top, 0), bottom = Math.min(box.bottom, innerHeight);
  if (right - left < 1 || bottom - top < 1) return "outside of the window";
  const over = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  if (!over || !(at.contains(over) || over.contains(at))) return `under ${over?.outerHTML.slice(0, 80)}`;
  const rings = [at, at.closest("li")].filter(Boolean).map((each) => getComputedStyle(each));
  const has = (ring) => ring.outlineStyle !== "none" && parseFloat(ring.outlineWidth) >= 2;
  return rings.some(has) ? "" : "without an outline";
}"""


class Keyboard:
    """The hands of one person at one page."""

    def __init__(self, page: Page, tree: CDPSession, *, has_scripts: bool) -> None:
        self.page = page
        self.has_scripts = has_scripts
        self._tree = tree

    @classmethod
    async def at(cls, page: Page, *, has_scripts: bool = True) -> Keyboard:
        return cls(page, await page.context.new_cdp_session(page), has_scripts=has_scripts)

    async def focused(self) -> tuple[str, str]:
        """The role and the accessible name of what has the focus, as the browser computes them."""
        found = await self._tree.send("Runtime.evaluate", {"expression": "document.activeElement"})
        about = {"objectId": found["result"]["objectId"], "fetchRelatives": False}
        node = (await self._tree.send("Accessibility.getPartialAXTree", about))["nodes"][0]
        return _value(node, "role"), _value(node, "name")

    async def tab_to(self, name: str, role: str = "", *, key: str = "Tab") -> None:
        """Until the focus is on the first element whose name begins so; it must be reached, and be seen."""
        passed = []
        for _ in range(MAX_STOPS):
            await self.page.keyboard.press(key)
            its_role, its_name = await self.focused()
            if its_name.startswith(name) and role in ("", its_role):
                problem = await self.page.evaluate(_IS_SEEN)
                assert problem == "", f"the focus on {its_role} {its_name!r} of {self.page.url} is {problem}"
                return
            passed.append(f"{its_role} {its_name!r}")
        raise AssertionError(f"Tab does not reach {role} {name!r} of {self.page.url}: {passed[:40]}")

    async def type_into(self, name: str, text: str) -> None:
        """Tab has selected what stood there, so it is replaced."""
        await self.tab_to(name, "textbox")
        await self.page.keyboard.type(text)

    async def press(self, key: str) -> None:
        await self.page.keyboard.press(key)

    async def go(self, name: str, role: str = "") -> None:
        """To a link or a button, Enter, and on to where it leads."""
        await self.tab_to(name, role)
        await self.enter()

    async def enter(self) -> None:
        """Follows the link that has the focus, or sends the form."""
        async with self.page.expect_navigation():
            await self.page.keyboard.press("Enter")

    async def copy(self, what: Locator) -> str:
        """By the next button `Copy`, which is there where scripts run; else as it stands there."""
        text = await what.inner_text()
        if self.has_scripts:
            await self.tab_to("Copy", "button")
            await self.page.keyboard.press("Enter")
            await expect(self.page.locator(":focus")).to_have_text("Copied")
            assert await self.page.evaluate("navigator.clipboard.readText()") == text
        return text

    async def sees(self, what: Locator, seconds: float = 30.0) -> None:
        """What comes by itself where scripts run; without them the reader loads the page again."""
        if self.has_scripts:
            await expect(what.first).to_be_visible(timeout=seconds * 1000)
            return
        for _ in range(int(seconds * 20)):
            if await what.first.is_visible():
                return
            await self.page.reload()
        raise AssertionError(f"{what} does not appear on {self.page.url}")


def _value(node: dict[str, Any], name: str) -> str:
    return str(node.get(name, {}).get("value", ""))
