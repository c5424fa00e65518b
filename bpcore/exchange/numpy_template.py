"""The parts of a predictor file that are the same for every network; see :mod:`bpcore.exchange.numpy_export`.

They run on Python 3.9 and NumPy 1.21 and all that came later. Names in capitals are set above them in the file.
"""

__all__ = ["CHECKS", "COMMAND", "ERROR_FUNCTION", "FORWARD", "ONE_HOT", "ROWWISE", "SEPARATE", "TABLE", "UNPACK"]

UNPACK = '''
def unpack(theta):
    """Cut the vector of all parameters into W and b of each layer."""
    layers, start = [], 0
    for n_in, n_out in zip(SIZES, SIZES[1:]):
        middle, end = start + n_in * n_out, start + n_in * n_out + n_out
        layers.append((theta[start:middle].reshape(n_in, n_out), theta[middle:end]))
        start = end
    return layers
'''

SEPARATE = '''
def read_weights():
    """Read the parameters from the file beside this one, and make sure that it is theirs."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), WEIGHTS_FILE)
    theta = np.load(path, allow_pickle=False)
    if hashlib.sha256(theta.tobytes()).hexdigest() != WEIGHTS_SHA256:
        raise ValueError(f"{path} does not hold the weights that belong to {__file__}")
    return theta
'''

ERROR_FUNCTION = '''
def {name}(x):
    """{what}, one number after the other: NumPy has none."""
    x = np.asarray(x)
    return np.asarray(np.frompyfunc(math.{name}, 1, 1)(x), np.float64).astype(x.dtype)
'''

ROWWISE = {
    "softmax": '''
def {name}(z):
    """exp(z_j) / sum_k exp(z_k)"""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
''',
    "log_softmax": '''
def {name}(z):
    """z_j - log(sum_k exp(z_k))"""
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
''',
}

TABLE = '''
def number(cell):
    """Return a cell as a number; NaN for one that is missing."""
    if isinstance(cell, str):
        cell = cell.strip()
        if FILLS_MISSING and cell.lower() in MISSING:
            return np.nan
        value = float(cell) if is_number(cell) else None
    else:
        value = np.nan if cell is None else float(cell)
    if value is None or np.isinf(value) or (np.isnan(value) and not FILLS_MISSING):
        raise ValueError(f"{cell!r} is not a finite number")
    return value


def is_number(text):
    try:
        return bool(np.isfinite(float(text))) and "_" not in text
    except ValueError:
        return False


CODES = {j: {text: k for k, text in enumerate(texts)} for j, texts in CATEGORIES.items()}


def code(cell, codes):
    """Return the code of a category; NaN for one that is missing."""
    text = "" if cell is None or cell != cell else str(cell).strip()
    if text in codes:
        return codes[text]
    if text.lower() not in MISSING:
        known = ", ".join(map(repr, list(codes)[:12])) + (", ..." if len(codes) > 12 else "")
        raise ValueError(f"{text!r} is not one of the categories that the model was trained on: {known}")
    if not FILLS_MISSING:
        raise ValueError(f"the value is missing ({text!r}), and this model fills in none")
    return np.nan


def numbers_of(cells):
    """Return the cells of a row, in the order of FEATURES, as numbers and codes of categories."""
    return [code(cell, CODES[j]) if j in CODES else number(cell) for j, cell in enumerate(cells)]


def table(X):
    """Return rows as a matrix of numbers: an array, rows of cells, or dicts by the names in FEATURES."""
    if isinstance(X, (list, tuple)) and any(isinstance(row, dict) for row in X):
        if FEATURES is None:
            raise ValueError("the columns have no names, so a row is a list of numbers and not a dict")
        try:
            X = [[row[name] for name in FEATURES] for row in X]
        except KeyError as error:
            raise ValueError(f"a row has no column {error}; needed: {', '.join(FEATURES)}") from None
    if isinstance(X, np.ndarray) or not CATEGORIES:
        found = np.asarray(X)
        if found.dtype.kind in "biuf":  # with categories: their codes
            return found
    rows = np.array(X, object)
    if rows.ndim != 2 or rows.shape[1] != COLUMNS:
        raise ValueError(f"X has shape {rows.shape}; expected (m, {COLUMNS}), one sample a row")
    found = np.empty(rows.shape)
    for i, row in enumerate(rows.tolist()):
        try:
            found[i] = numbers_of(row)
        except (TypeError, ValueError) as error:
            raise ValueError(f"row {i}: {error}") from None
    return found
'''

CHECKS = '''
def check(X):
    """Return X as a matrix of float32 or float64 with the right number of columns, or say what is wrong."""
    X = table(X)
    if X.ndim != 2 or X.shape[1] != COLUMNS:
        raise ValueError(f"X has shape {X.shape}; expected (m, {COLUMNS}), one sample a row")
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    if not np.isfinite(np.where(np.isnan(X), 0, X) if FILLS_MISSING else X).all():
        raise ValueError("X holds " + ("infinite values" if FILLS_MISSING else "NaN or infinite values"))
    return X
'''

ONE_HOT = '''
def one_hot(X, counts):
    """Turn columns of codes 0 ... K-1 into K columns of 0 and 1 each; a count of 0 is a column of numbers."""
    parts = []
    for j, count in enumerate(counts):
        column = X[:, j : j + 1]
        if count:
            column = (column == np.arange(count)).astype(X.dtype)
            if not column.any(axis=1).all():
                row = int(np.argmin(column.any(axis=1)))
                raise ValueError(f"X[{row}, {j}] is {X[row, j]}; it must be the code of a category, 0 to {count - 1}")
        parts.append(column)
    return np.hstack(parts)
'''

FORWARD = '''
def forward(X):
    """Return the outputs of the network, shape (m, n_L)."""
    with np.errstate(all="ignore"):
        H = prepare(check(X)).astype(DTYPE)
        if not np.isfinite(H).all():
            raise ValueError(f"X holds values that do not fit in {np.dtype(DTYPE)}")
        for (W, b), activation in zip(LAYERS, ACTIVATIONS):
            H = np.asarray(activation(H @ W + b), DTYPE)
    return H
'''

COMMAND = '''
def columns(X, probabilities):
    """Return the columns of the result by name."""
    values = predict(X)
    if values.ndim == 1:
        result = {"prediction": values}
    elif values.shape[1] == 1:
        result = {"prediction": values[:, 0]}
    else:
        result = {f"prediction {j}": values[:, j] for j in range(values.shape[1])}
    if probabilities:
        P = predict_proba(X)
        result.update((f"p({name})", P[:, j]) for j, name in enumerate(CLASSES))
    return result


def blocks(file):
    """Yield the samples of a CSV file, a matrix of at most 4096 rows at a time."""
    first = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(",;\\t", key=first.count))
    rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
    rows = (row for row in rows if any(row[1]))
    line, first = next(rows, (1, []))
    chosen = range(COLUMNS)
    names = [name.strip() for name in FEATURES or ()]
    if is_sample(first) and not (names and set(names) <= set(first) and not all(map(is_number, first))):
        rows = itertools.chain([(line, first)], rows)
    elif FEATURES is not None:
        absent = [name for name in names if name not in first]
        if absent:
            raise ValueError(f"there is no column {absent[0]!r}; found: {', '.join(first)}")
        chosen = [first.index(name) for name in names]
    width = len(first)
    if width < COLUMNS or (isinstance(chosen, range) and width > COLUMNS):
        raise ValueError(f"line {line}: {width} columns, but {COLUMNS} are needed")
    block = []
    for line, row in rows:
        if len(row) != width:
            raise ValueError(f"line {line}: {len(row)} columns, but the first line has {width}")
        try:
            block.append(numbers_of([row[j] for j in chosen]))
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        if len(block) == 4096:
            yield np.array(block)
            block = []
    if block:
        yield np.array(block)


def is_sample(cells):
    """Say whether a row holds values, and no names of columns."""
    if not CATEGORIES and not FILLS_MISSING:
        return all(map(is_number, cells))
    try:
        numbers_of(cells)
    except ValueError:
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description="Predict the target of every row of a CSV file.")
    parser.add_argument("data", help="columns separated by commas, semicolons or tabs; with or without a header")
    parser.add_argument("--probabilities", action="store_true", help="one more column for each class")
    options = parser.parse_args()
    if options.probabilities and not HAS_PROBABILITIES:
        parser.error("--probabilities: this model gives none")
    writer, header = csv.writer(sys.stdout, lineterminator="\\n"), True
    try:
        with open(options.data, encoding="utf-8-sig", newline="") as file:
            for X in blocks(file):
                result = columns(X, options.probabilities)
                if header:
                    writer.writerow(result)
                    header = False
                writer.writerows(zip(*(values.tolist() for values in result.values())))
    except (OSError, ValueError, csv.Error) as error:
        sys.exit(f"{options.data}: {error}")
    if header:
        sys.exit(f"{options.data}: there are no rows")


if __name__ == "__main__":
    main()
'''
