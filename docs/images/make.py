"""Makes the pictures of docs/concepts.md: ``python docs/images/make.py``. Illustrations, of made-up distributions."""

from pathlib import Path

import numpy as np

from ssdfast.plot_style import pyplot, style

HERE = Path(__file__).parent
INK, GREY, BLUE, ORANGE, GREEN = "#333333", "#b8bec9", "#2b5fd9", "#d9822b", "#2f9e6e"
LOCK = np.array([0.78, 0.06, 0.045, 0.035, 0.025, 0.02, 0.02, 0.015])
FORK = np.array([0.24, 0.20, 0.17, 0.14, 0.11, 0.07, 0.04, 0.03])


def q(p: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """The distribution of the training samples: tempered, then truncated to the nucleus. `p` is in falling order."""
    tempered = p ** (1 / temperature)
    tempered /= tempered.sum()
    tempered[np.cumsum(tempered) - tempered >= top_p] = 0
    return tempered / tempered.sum()


def bars(axes, p, title):
    places = np.arange(len(p))
    axes.bar(places - 0.2, p, 0.4, color=GREY, label="baseline")
    axes.bar(places + 0.2, q(p, 1.1, 0.9), 0.4, color=BLUE, label="q: T = 1.1, top-p 0.9")
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks(places, ["1", "2", "3", "4", "5", "6", "7", "8"])
    axes.set_xlabel("token, by rank")
    axes.set_ylim(0, 0.85)


def save(figure, name):
    figure.savefig(HERE / name, metadata={"Date": None, "Creator": None}, bbox_inches="tight", facecolor="white")


def main():
    with pyplot() as plt, plt.rc_context(style(INK)):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.6), sharey=True)
        bars(left, LOCK, "A lock: one right token and a tail")
        bars(right, FORK, "A fork: several good tokens")
        left.set_ylabel("probability")
        right.legend()
        save(figure, "lock-and-fork.svg")

        figure, axes = plt.subplots(figsize=(5.4, 2.8))
        temperatures = np.linspace(0.4, 1.6, 61)
        for factor, colour, label in ((1.0, INK, "baseline"), (1.2, BLUE, "trained at T_train = 1.2")):
            top = [LOCK[0] ** (1 / (factor * t)) / (LOCK ** (1 / (factor * t))).sum() for t in temperatures]
            axes.plot(temperatures, top, color=colour, label=label)
        level = LOCK[0]
        axes.annotate("", (0.833, level), (1.0, level), arrowprops={"arrowstyle": "->", "color": ORANGE})
        axes.text(1.03, level, "the same at T_eval = 1 / 1.2", color=ORANGE, va="center", fontsize=9)
        axes.set_xlabel("T_eval")
        axes.set_ylabel("probability of the top token")
        axes.legend(loc="lower left")
        save(figure, "temperatures.svg")

        figure, axes = plt.subplots(figsize=(6.4, 1.9))
        parts = {"ssd": BLUE, "temperature": ORANGE, "eos_bias": GREEN, "residual": GREY}
        shifts = {"control": (0.0, 0.002, 0.004, 0.030), "arm": (0.022, 0.004, 0.004, 0.030)}
        for row, values in enumerate(shifts.values()):
            start = 0.0
            for (name, colour), value in zip(parts.items(), values, strict=True):
                axes.barh(row, value, left=start, color=colour, height=0.55, label=name if row else None)
                start += value
        axes.set_yticks(range(len(shifts)), list(shifts))
        axes.set_xlabel("KL(trained ‖ baseline), nats per position")
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
        save(figure, "components.svg")


if __name__ == "__main__":
    main()
