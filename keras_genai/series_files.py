"""CSV files of a time series: delimiter, heading, decimal sign and gaps, strict or refused."""

import csv
import io
import re

import numpy as np

from keras_genai.files import read_text

MAX_ROUNDING = 1e-3  # of the range of a series
MAX_VALUE = float(np.finfo("float32").max)
# Between groups of three digits, besides the comma or the point: no-break spaces, apostrophes.
GROUP_SIGNS = "\u00a0\u202f'\u2019"


def _number_pattern(decimal: str, group: str) -> re.Pattern:
    fraction = rf"[{decimal}][0-9]*"
    plain = rf"([0-9]+({fraction})?|[{decimal}][0-9]+)([eE][+-]?[0-9]+)?"
    grouped = rf"[1-9][0-9]{{0,2}}(?P<sign>[{group}{GROUP_SIGNS}])[0-9]{{3}}"
    grouped += rf"((?P=sign)[0-9]{{3}})*({fraction})?"
    return re.compile(rf"[+-]?({plain}|{grouped})")


DATE = re.compile(r"[0-9]{4}([-/.][0-9]{2}){0,2}([T ].*)?")
PATTERNS = {".": _number_pattern(".", ","), ",": _number_pattern(",", ".")}


def read_series(path, decimal: str | None = None) -> np.ndarray:
    """Read the last column of a CSV file; see `datasets.load_series`.

    Args:
        path: String or path.
        decimal: `"."`, `","` or `None`.

    Returns:
        A float64 array `(n,)`; NaN stands for an empty field.

    Raises:
        ValueError: if the file cannot be read in exactly one way.
    """
    text = read_text(path)
    try:
        delimiter, rows = _read_rows(text)
        if _has_heading(rows, delimiter):
            del rows[0]
        _check_dates(rows)
        return _to_values(rows, delimiter, decimal)
    except (csv.Error, ValueError) as error:
        reason = f"expected a CSV file with numbers in its last column ({error})"
        raise ValueError(f"{path}: {reason}.") from error


def _read_rows(text: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the delimiter, and the line number and fields of each row, all of one length.

    The delimiter is the first of tab, semicolon and comma that occurs in the first row. Empty rows
    above and below the table are dropped.
    """
    for delimiter in "\t;,":
        try:
            rows = _parse_rows(text, delimiter)
        except csv.Error:
            if delimiter == ",":  # the last
                raise
            continue  # a quote that ends before a comma, not before this delimiter
        if rows and len(rows[0][1]) > 1:
            break
    if not rows:
        raise ValueError("an empty file")
    num_fields = len(rows[0][1])
    for number, fields in rows:
        if not any(fields):
            raise ValueError(f"line {number}: an empty row within the table")
        if len(fields) != num_fields:
            raise ValueError(
                f"line {number}: number of fields: expected {num_fields}, as in line "
                f"{rows[0][0]}, got {len(fields)}"
            )
    return delimiter, rows


def _parse_rows(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows = []
    try:
        for fields in reader:
            # A blank line is a row with an empty field.
            rows.append((reader.line_num, [field.strip() for field in fields] or [""]))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from error
    filled = [i for i, (_, fields) in enumerate(rows) if any(fields)]
    return rows[filled[0] : filled[-1] + 1] if filled else []


def _has_heading(rows, delimiter: str) -> bool:
    """Return whether the first row is a heading, not values."""
    (number, first), *others = rows
    second = others[0][1] if others else [""] * len(first)
    is_number = any(_parse(first[-1], sign) is not None for sign in PATTERNS)
    shapes = [re.sub("[0-9]", "0", fields[0]) for fields in (first, second)]
    if len(first) == 1:
        return not is_number
    if not is_number and first[-1]:
        if others and "0" in shapes[0] and shapes[0] == shapes[1]:  # two dates
            raise ValueError(f"line {number}: expected a number, got {first[-1][:40]!r}")
        return True
    if "0" not in shapes[0]:
        if "0" in shapes[1]:
            return True  # such as "month,2020" above "1,5"
        raise ValueError(f"line {number}: a heading or values? Add a heading")
    if len(first) > 2:
        raise ValueError(f"line {number}: more than two columns without a heading. Add a heading")
    joined = [",".join(fields) for _, fields in rows]
    if delimiter == "," and any(all(_parse(x, s) is not None for x in joined) for s in PATTERNS):
        raise ValueError(
            f"line {number}: two columns, or numbers with a comma? Add a heading for each column"
        )
    return False


def _check_dates(rows) -> None:
    """Raise ValueError if the first column has dates, the year first, that decrease."""
    dates = [fields[0] for _, fields in rows if len(fields) > 1]
    if not all(DATE.fullmatch(date) for date in dates):
        return
    for (number, _), date, previous in zip(rows[1:], dates[1:], dates, strict=False):
        if date < previous:
            raise ValueError(
                f"line {number}: {date[:40]} after {previous[:40]}; sort the rows by date"
            )


def _to_values(rows, delimiter: str, decimal: str | None) -> np.ndarray:
    """Return the numbers of the last column, which all have the same decimal sign."""
    fields = [(number, row[-1]) for number, row in rows if row[-1]]
    if not fields:
        raise ValueError("found none")
    signs = decimal or ".,"
    commas = delimiter == "," and len(rows[0][1]) > 1
    if decimal is None and commas and not any("," in field for _, field in fields):
        signs = "."  # commas separate the columns, not the decimals
    parsed = {sign: [_parse(field, sign) for _, field in fields] for sign in signs}
    valid = [
        [value for value in values if value is not None]
        for values in parsed.values()
        if None not in values
    ]
    if not valid:
        # The line at which the last of the readings fails.
        number, field = fields[max(values.index(None) for values in parsed.values())]
        raise ValueError(f"line {number}: expected a number, got {field[:40]!r}")
    first, *rest = valid
    for other in rest:
        for (number, field), value, other_value in zip(fields, first, other, strict=True):
            if value != other_value:
                plain = re.sub(r"[^0-9+-]", "", field)
                raise ValueError(
                    f"line {number}: {field[:40]!r} is {value:g} or {other_value:g}; pass decimal, "
                    f"or write {plain[:40]} or {field[:40]}0"
                )
    for (number, field), value in zip(fields, first, strict=True):
        if abs(value) > MAX_VALUE or (value != 0 and np.float32(value) == 0):
            raise ValueError(f"line {number}: expected a number within float32, got {field[:40]!r}")
    numbers = np.array(first)
    rounding = np.abs(numbers - numbers.astype("float32")).max()
    if 0 < MAX_ROUNDING * np.ptp(numbers) < rounding:  # such as times in seconds since 1970
        raise ValueError(
            f"float32 rounds values by {rounding:g}, in a range of {np.ptp(numbers):g}; "
            "subtract a constant"
        )
    filled = iter(first)
    return np.array([next(filled) if row[-1] else np.nan for _, row in rows])


def _parse(field: str, decimal: str) -> float | None:
    """Return the number in a field, or `None` if it is not a number with this decimal sign."""
    if not PATTERNS[decimal].fullmatch(field):
        return None
    group = "," if decimal == "." else "."
    return float(re.sub(f"[{group}{GROUP_SIGNS}]", "", field).replace(decimal, "."))
