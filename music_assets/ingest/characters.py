"""Invisible characters: which they are, how a text is trimmed of them, and how it is shown with them."""

BLANK_RANGES = (
    *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680), (0x180E, 0x180E)),
    *((0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
"""First and last code point of the blanks of Unicode and of its zero-width characters."""
INVISIBLE = "".join(chr(code) for first, last in BLANK_RANGES for code in range(first, last + 1))


def trimmed(text: str) -> str:
    """Return the text without invisible characters at either end."""
    return text.strip(INVISIBLE)


def escaped(text: str) -> str:
    r"""Return the text for a message: characters that cannot be seen are escaped, such as `\u200b`."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
