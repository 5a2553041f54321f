"""Forms of poems: the tokens that may stand at each place of a text.

The form of a Tang quatrain with verses of five characters is `"*****，*****。*****，*****。"`: a
star is any letter, such as a Chinese character, and everything else stands for itself. Under a
form, a model samples each token from its own distribution, restricted to the tokens that the form
allows at that place; see `allowed_tokens` of `autoregressive.generate`.
"""

import numpy as np

from keras_genai.validation import check_methods, check_type

ANY_LETTER = "*"

FIVE_CHARACTER_QUATRAIN = "*****，*****。*****，*****。"
SEVEN_CHARACTER_QUATRAIN = "*******，*******。*******，*******。"


def form_tokens(form, tokenizer) -> np.ndarray:
    r"""Return which tokens a form allows at each place.

    Args:
        form: String of n characters: `*` for any letter, every other character for itself.
        tokenizer: Tokenizer that has a token for each character of the form.

    Returns:
        A bool array `(n, vocab_size)`, the `allowed_tokens` of n new tokens.

    Raises:
        ValueError: for an empty form, and for a character for which the tokenizer has no token.

    Example:
        allowed = form_tokens(FIVE_CHARACTER_QUATRAIN, model.tokenizer)
        model.generate("\n", len(allowed), allowed_tokens=allowed)
    """
    check_type("form", form, str)
    if not form:
        raise ValueError("form: expected at least one character, got an empty string.")
    check_methods("tokenizer", tokenizer, "a tokenizer", "decode", "vocab_size")
    texts = np.array([tokenizer.decode([token]) for token in range(tokenizer.vocab_size)], object)
    letters = np.array([len(text) == 1 and text.isalpha() for text in texts])
    rows = {character: texts == character for character in set(form) - {ANY_LETTER}}
    rows[ANY_LETTER] = letters
    for character in form:
        if not rows[character].any():
            raise ValueError(
                f"form: expected characters that are tokens of the tokenizer, got {character!r}."
            )
    return np.array([rows[character] for character in form])
