"""What `dlzoo explain` draws of a run that was trained on text: where heads look, what comes next, how far back it depends."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dlzoo import rundir, verbs, zoo
from dlzoo.errors import ConfigError
from dlzoo.rundir import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from dlzoo.data.sentences import Sentences
    from dlzoo.data.tokenizers import Tokenizer
    from dlzoo.insight import Options
    from dlzoo.nn.recurrent import Recurrent

# what there is, and what to look at in it: of a language model, and of a translator
TEXT = {
    "heads": "which tokens does each head look at: the one before, the same one earlier, the beginning of the word?",
    "next": "where is it sure, and is it right there? where it is not, are its choices at least of the right kind?",
    "gradients": "how many steps back does what it read still count? what lies beyond cannot be learned",
}
SENTENCES = {
    "heads": "do heads of the encoder differ? does cross attention follow the words of the source?",
    "align": "is each word written while its own source word is looked at, also where the order differs?",
}
HEADS, PLACES = 32, 40  # tokens of validation text whose attention, or whose next token, is shown
WINDOWS = 32  # of validation text that the gradients are the mean of
STEPS, WIDTH, BATCH, SEEDS = 100, 64, 8, 10  # of the untrained networks


class TextLook:
    """A language model: its network, its tokenizer and its validation text, each read when first needed."""

    kinds = TEXT

    def __init__(self, run: Run, named: str | Path, options: "Options") -> None:
        self.run, self.options = run, options
        self.title = str(run.config["name"])
        self.net = verbs.load(named, options.which)
        self.tokenizer = tokenizer_of(run)
        self.context = int(run.summary["preprocess"]["context"])
        self._table: list[str] = []

    def hints(self, drawn: list[str]) -> list[str]:
        """What to say when all is drawn."""
        return ["a text of yours: --text 'To be, or not to be'"] if not self.options.text and "next" in drawn else []

    def tell(self, kind: str) -> list[str]:
        """What there is to read beside a figure."""
        return self._table if kind == "next" else []

    def draw(self, kind: str) -> "dict[str, Figure]":
        """The figures of one kind, by the names of their files."""
        return {kind: {"heads": self._heads, "next": self._next, "gradients": self._gradients}[kind]()}

    def tokens(self, most: int) -> "Tensor":
        """The user's text, or else validation text that begins with a line: (T,), at most `most` and the context."""
        import torch

        if self.options.text is not None:
            found = torch.as_tensor(self.tokenizer.encode(self.options.text))
            if len(found) < 2:
                raise ConfigError(f"--text must be at least 2 tokens, got {len(found)}", where="--text")
            return found[: self.context]
        held_out = self.held_out()
        start = 0
        for place, token in enumerate(held_out[:1000].tolist()):
            if self.tokenizer.decode([token]).endswith("\n"):
                start = place + 1
                break
        return held_out[start : start + min(most, self.context)]

    def held_out(self) -> "Tensor":
        """Validation text, or test text where nothing validates: (N,)."""
        import torch

        from dlzoo.config import run_config

        data = zoo.build(run_config(self.run, list(self.options.overrides))["data"])
        data.prepare_data()
        data.setup("fit")
        found = data.splits.val if data.validates else data.splits.test
        return torch.as_tensor(found[: WINDOWS * (self.context + 1) + 1000]).long()

    def _heads(self) -> "Figure":
        from dlzoo.explain.attention import attention_maps
        from dlzoo.plots.heads import heads

        tokens = self.tokens(HEADS)
        maps = {name: weights[0] for name, weights in attention_maps(self.net, tokens[None]).items()}
        chosen = named(maps, self.options.layer)
        words = shown(self.tokenizer, tokens)
        title = f"{self.title}: how much each token (row) takes of each before it (column)"
        return heads(chosen, title, words, words, "A row sums to 100 %; the colours follow the square root.")

    def _next(self) -> "Figure":
        from dlzoo.explain.next_tokens import next_tokens
        from dlzoo.plots.next_tokens import next_tokens as picture

        tokens = self.tokens(PLACES)
        expected = next_tokens(self.net, tokens, self.options.top)
        words = shown(self.tokenizer, tokens)
        choices = [shown(self.tokenizer, row) for row in expected.tokens]
        ranks = expected.rank.tolist()
        count = expected.tokens.shape[1]
        first = sum(rank == 0 for rank in ranks)
        loss = -expected.true.log().mean().item()
        said = f"the first choice is what comes {first} of {len(ranks)} times; mean loss {loss:.3f} nats"
        rows = zip(words, words[1:], expected.true.tolist(), ranks, choices, expected.probabilities.tolist(), strict=False)
        width = max(map(len, words), default=1)
        self._table = [
            f"  {read:{width}}  then {true:{width}} {share:6.1%}{'  ' if rank else ' *'}  expected "
            + "  ".join(f"{word} {chance:.0%}" for word, chance in zip(row, chances, strict=True))
            for read, true, share, rank, row, chances in rows
        ] + [f"  {said}"]
        hits = [rank if rank < count else None for rank in ranks]
        return picture(
            words[:-1],
            words[1:],
            expected.true,
            choices,
            expected.probabilities,
            hits,
            f"{self.title}: the next token, and what was expected (%)",
            f"Framed: what comes. {said[0].upper()}{said[1:]}.",
        )

    def _gradients(self) -> "Figure":
        import torch

        from dlzoo.explain.through_time import input_gradients
        from dlzoo.plots.fading import fading

        if self.options.text is not None:
            windows = self.tokens(self.context + 1)[None]
        else:
            windows = self.held_out()
            windows = windows[: len(windows) // (self.context + 1) * (self.context + 1)].view(-1, self.context + 1)[:WINDOWS]
        torch.manual_seed(self.run.summary["seed"])
        fresh = zoo.build(zoo.without_published(self.run.config["model"]))
        curves = {"trained": input_gradients(self.net, windows), "before training": input_gradients(fresh, windows)}
        if self.options.beside:
            other = rundir.find(self.options.beside)
            if tokenizer_of(other).as_dict() != self.tokenizer.as_dict():
                raise ConfigError("the other run has other tokens", where="--beside", fix="two runs of one data set")
            net = verbs.load(self.options.beside, self.options.which)
            curves[str(other.config["name"])] = input_gradients(net, windows)
        note = (
            f"Norm of the gradient of the last token's loss for the vector of each token before it, mean of {len(windows)}\n"
            f"windows of {windows.shape[1] - 1} tokens, as a share of that of the last token read. At the right: what is left."
        )
        return fading(curves, f"{self.title}: how far back the next token depends", "gradient, share of the last", note)


class SentencesLook:
    """A translator: where its heads look, and its alignment of a sentence with the translation."""

    kinds = SENTENCES

    def __init__(self, run: Run, named: str | Path, options: "Options") -> None:
        self.run, self.options = run, options
        self.title = str(run.config["name"])
        self.net = verbs.load(named, options.which)
        self._pair: tuple[Tensor, Tensor, list[str], list[str]] | None = None

    def hints(self, drawn: list[str]) -> list[str]:
        """What to say when all is drawn."""
        return []

    def tell(self, kind: str) -> list[str]:
        """What there is to read beside a figure."""
        return []

    def draw(self, kind: str) -> "dict[str, Figure]":
        """The figures of one kind, by the names of their files."""
        return {"align": self._align()} if kind == "align" else self._heads()

    @property
    def pair(self) -> "tuple[Tensor, Tensor, list[str], list[str]]":
        """Source (1, S), what the network writes for it (1, T), and both as words: the decoder reads what it wrote."""
        if self._pair is None:
            import torch

            from dlzoo.data.sentences import BEGIN, END, Sentences
            from dlzoo.ops.search import write

            how = self.run.summary["preprocess"]
            reads, writes = (Sentences.load(self.run.dir / how[f"{side}_tokenizer"]) for side in ("source", "target"))
            source = torch.as_tensor(reads.encode(self.options.text or self._sentence()))[None]
            with torch.no_grad():
                written, _ = write(self.net, source, BEGIN, END, 2 * source.shape[1] + 10)
            tokens = written[0].tolist()
            tokens = tokens[: tokens.index(END)] if END in tokens else tokens
            target = torch.tensor([[BEGIN, *tokens]])
            words = [_of_sentence(made, row, END) for made, row in ((reads, source[0].tolist()), (writes, [*tokens, END]))]
            self._pair = source, target, *words
        return self._pair

    def _sentence(self) -> str:
        """The first validation sentence of six words or more."""
        from dlzoo.config import run_config

        data = zoo.build(run_config(self.run, list(self.options.overrides))["data"])
        lines = data.lines("val", data.source)
        return next((line for line in lines if 6 <= len(line.split()) <= 14), lines[0])

    def _heads(self) -> "dict[str, Figure]":
        from dlzoo.explain.attention import attention_maps
        from dlzoo.plots.heads import heads

        source, target, read, written = self.pair
        maps = {name: weights[0] for name, weights in attention_maps(self.net, source, target).items()}
        shown_maps, figures = named(maps, self.options.layer), {}
        for part, (queries, keys) in {
            "encoder": (read, read),
            "cross": (written, read),
            "decoder": (written, ["(begin)", *written[:-1]]),
        }.items():
            chosen = {name: weights for name, weights in shown_maps.items() if _part(name) == part}
            if chosen:
                title = f"{self.title}: {part} attention, each token (row) and what it takes (columns)"
                figures[f"heads_{part}"] = heads(chosen, title, queries, keys)
        return figures

    def _align(self) -> "Figure":
        import torch

        from dlzoo.plots.heads import heads

        source, target, read, written = self.pair
        if not hasattr(self.net, "align"):
            raise ConfigError(f"{type(self.net).__name__} aligns nothing", where="align")
        with torch.no_grad():
            weights = self.net.align(source, target)
        title = f"{self.title}: what it looks at (columns) while it writes (rows)"
        return heads({"alignment": weights}, title, written, read)


def cells_through_time(path: Path, say: Callable[[str], None]) -> Path:
    """Draws how much of a gradient comes back through a hundred steps of each recurrent network, untrained.

    Args:
        path: the picture.
        say: is called with the lines to print.
    """
    import torch

    from dlzoo.nn.recurrent import GRU, LSTM, RNN
    from dlzoo.ops.through_time import gradients_through_time
    from dlzoo.plots import figure
    from dlzoo.plots.fading import fading

    def nets() -> "dict[str, Recurrent]":
        plain = {"RNN": RNN(1, WIDTH), "GRU": GRU(1, WIDTH), "LSTM, as torch begins": LSTM(1, WIDTH, forget_bias=None)}
        return plain | {f"LSTM, forget bias {bias}": LSTM(1, WIDTH, forget_bias=float(bias)) for bias in (0, 1, 2)}

    measured: dict[str, list[Tensor]] = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for name, net in nets().items():
            inputs = torch.randn(STEPS, BATCH, 1, dtype=torch.float64)  # float32 would round the smallest gradients to 0
            state = tuple(part[0] for part in net.double().zeros(BATCH))
            norms = gradients_through_time(net.step, inputs, state, part=net.PARTS - 1)
            measured.setdefault(name, []).append(norms / norms[-1])
    curves = {name: torch.stack(each).log().mean(0).exp() for name, each in measured.items()}
    note = (
        f"Gradient of the squared last state for the state (of an LSTM: the memory) after each step; {STEPS} steps of noise,\n"
        f"{WIDTH} units, float64, geometric mean of {SEEDS} seeds. At the right: the share that reaches the first state."
    )
    try:
        drawn = fading(curves, "What is left of a gradient on its way back through time", "gradient, share of the last", note)
        figure.save(drawn, path)
    except OSError as error:
        raise ConfigError(f"{path} can not be written: {error.strerror}", where="--out") from error
    say(f"{path}\n  what a network cannot feel it cannot learn; the forget bias is what keeps the way open")
    for name, share in curves.items():
        of_seeds = [each[0].item() for each in measured[name]]
        say(f"  {name:22} {share[0].item():8.1e} reaches the first state ({min(of_seeds):.1e} to {max(of_seeds):.1e})")
    return path


def tokenizer_of(run: Run) -> "Tokenizer":
    """The one that a run keeps."""
    from dlzoo.data.tokenizers import load_tokenizer

    return load_tokenizer(run.dir / run.summary["preprocess"]["tokenizer"])


def shown(tokenizer: "Tokenizer", tokens: "Tensor") -> list[str]:
    """Each token as it can be read: a space, a line's end and a tab have signs."""
    return [shown_one(tokenizer.decode([token])) for token in tokens.tolist()]


def shown_one(text: str) -> str:
    for sign, visible in ((" ", "\N{MIDDLE DOT}"), ("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"), ("\t", "\\t")):
        text = text.replace(sign, visible)
    return text or "(none)"


def named(maps: "dict[str, Tensor]", layer: str | None) -> "dict[str, Tensor]":
    """The maps of a layer, or of all.

    Raises:
        ConfigError: there is no attention in it.
    """
    chosen = {name: weights for name, weights in maps.items() if layer is None or name.startswith(layer)}
    if not chosen:
        raise ConfigError(f"there is no attention in {layer}", where="--layer", fix=", ".join(maps))
    return chosen


def _of_sentence(sentences: "Sentences", tokens: list[int], end: int) -> list[str]:
    """Each token of a sentence as it can be read; those below the tokenizer's own are no text."""
    first = sentences.vocab_size - sentences.tokenizer.vocab_size
    return [
        shown_one(sentences.tokenizer.decode([token - first])) if token >= first else "(end)" if token == end else "(none)"
        for token in tokens
    ]


def _part(name: str) -> str:
    """Of a Transformer's attention: encoder, cross or decoder."""
    return "cross" if name.endswith("cross") else name.partition(".")[0]
