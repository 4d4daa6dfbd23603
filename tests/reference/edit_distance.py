"""Edit distance by exhaustive dynamic programming that keeps every way of reaching the minimum."""


def edit_distance(reference: str, hypothesis: str) -> int:
    """Levenshtein distance straight from its recursive definition (rows of a full table)."""
    row = list(range(len(hypothesis) + 1))
    for i, left in enumerate(reference, start=1):
        previous, row = row, [i]
        for j, right in enumerate(hypothesis, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (left != right)))
    return row[-1]


def optimal_counts(reference: str, hypothesis: str) -> set[tuple[int, int, int]]:
    """Every (substitutions, deletions, insertions) with which some minimum-cost alignment gets by."""

    def cheapest(candidates: set[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
        lowest = min(sum(candidate) for candidate in candidates)
        return {candidate for candidate in candidates if sum(candidate) == lowest}

    table: dict[tuple[int, int], set[tuple[int, int, int]]] = {(0, 0): {(0, 0, 0)}}
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            candidates = set(table.get((i, j), set()))
            if i > 0:
                candidates |= {(s, d + 1, n) for s, d, n in table[i - 1, j]}
            if j > 0:
                candidates |= {(s, d, n + 1) for s, d, n in table[i, j - 1]}
            if i > 0 and j > 0:
                wrong = int(reference[i - 1] != hypothesis[j - 1])
                candidates |= {(s + wrong, d, n) for s, d, n in table[i - 1, j - 1]}
            table[i, j] = cheapest(candidates)
    return table[len(reference), len(hypothesis)]
