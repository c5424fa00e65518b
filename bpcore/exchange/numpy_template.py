"""The parts of a predictor file that are the same for every network; see :mod:`bpcore.exchange.numpy_export`.

They run on Python 3.9 and NumPy 1.21 and all that came later. Names in capitals are set above them in the file.
"""

__all__ = ["CHECKS", "COMMAND", "ERROR_FUNCTION", "FORWARD", "ROWWISE", "SEPARATE", "UNPACK"]

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

CHECKS = '''
def check(X):
    """Return X as a matrix of float32 or float64 with the right number of columns, or say what is wrong."""
    X = np.asarray(X)
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X has dtype {X.dtype}; numbers are needed")
    if X.ndim != 2 or X.shape[1] != SIZES[0]:
        raise ValueError(f"X has shape {X.shape}; expected (m, {SIZES[0]}), one sample a row")
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    if not np.isfinite(X).all():
        raise ValueError("X holds NaN or infinite values")
    return X
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


def is_number(cell):
    try:
        return bool(np.isfinite(float(cell))) and "_" not in cell
    except ValueError:
        return False


def blocks(file):
    """Yield the samples of a CSV file, a matrix of at most 4096 rows at a time."""
    first = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(",;\\t", key=first.count))
    rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
    rows = (row for row in rows if any(row[1]))
    line, first = next(rows, (1, []))
    chosen = range(SIZES[0])
    if all(map(is_number, first)):
        rows = itertools.chain([(line, first)], rows)
    elif FEATURES is not None:
        names = [name.strip() for name in FEATURES]
        absent = [name for name in names if name not in first]
        if absent:
            raise ValueError(f"there is no column {absent[0]!r}; found: {', '.join(first)}")
        chosen = [first.index(name) for name in names]
    width = len(first)
    if width < SIZES[0] or (isinstance(chosen, range) and width > SIZES[0]):
        raise ValueError(f"line {line}: {width} columns, but {SIZES[0]} are needed")
    block = []
    for line, row in rows:
        if len(row) != width:
            raise ValueError(f"line {line}: {len(row)} columns, but the first line has {width}")
        bad = [row[j] for j in chosen if not is_number(row[j])]
        if bad:
            raise ValueError(f"line {line}: {bad[0]!r} is not a finite number")
        block.append([float(row[j]) for j in chosen])
        if len(block) == 4096:
            yield np.array(block)
            block = []
    if block:
        yield np.array(block)


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
