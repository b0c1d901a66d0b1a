"""The page on compatibility says what the tables say."""

from tests.gateway.sdk_types.page import PAGE, page


def test_the_page_is_current() -> None:
    """To write it again: python -m tests.gateway.sdk_types.page"""
    assert PAGE.read_text(encoding="utf-8") == page()
