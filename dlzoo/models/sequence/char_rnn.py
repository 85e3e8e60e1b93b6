"""A language model that reads one character after the other, and keeps in its state what it will need of them.

Each token becomes a learned vector; a stack of recurrent layers reads the vectors; a linear map turns each output into the
logits of the next token. Training shows it a window at once (`forward`). Text is written one token at a time, from the state
that all before have left (`with_state`): no token is read twice, and no context is too long, only forgotten.

Source: Graves 2013, Generating Sequences With Recurrent Neural Networks, https://arxiv.org/abs/1308.0850, sections 2 and 3;
    Karpathy, Johnson, Li 2015, Visualizing and Understanding Recurrent Networks, https://arxiv.org/abs/1506.02078, section 3
    (two layers, cells compared); Zaremba et al. 2014, https://arxiv.org/abs/1409.2329, section 3.1 (where dropout goes); Press,
    Wolf 2016, https://arxiv.org/abs/1608.05859 (one matrix for both ends).
Differs from it: learned vectors in place of one-hot ones; no connections that skip layers.

Shapes: B batch, T tokens, V vocabulary, F features of a token's vector, H hidden, N layers.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.recurrent import GRU, LSTM, RNN, Recurrent, State

__all__ = ["CharRNN", "char_gru", "char_lstm", "char_rnn"]


class CharRNN(nn.Module):
    """Vectors of the tokens, recurrent layers, logits of the next token.

    Args:
        recurrent: the layers, read forwards; its features are the width of the vectors.
        vocab_size: V.
        dropout: how likely a number is zeroed in front of the first layer and behind the last one, in training; between layers
            it is an argument of `recurrent`.
        tied: the vectors of the tokens are also the head's weights, which then has no bias.

    Shape:
        (B, T) -> (B, T, V), tokens and logits.

    Raises:
        ValueError: vocab_size is below 1, dropout is not from 0 to 1, the layers read backwards, or `tied` meets layers whose
            outputs are not as wide as the vectors.
    """

    def __init__(self, recurrent: Recurrent, vocab_size: int, dropout: float = 0.0, tied: bool = False) -> None:
        super().__init__()
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, got {dropout}")
        if recurrent.directions > 1:
            raise ValueError("recurrent must not be bidirectional: it would read the token that is to be predicted")
        if tied and recurrent.width != recurrent.features:
            raise ValueError(f"tied needs outputs as wide as the vectors, {recurrent.features}, got {recurrent.width}")
        self.embedding = nn.Embedding(vocab_size, recurrent.features)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = recurrent
        self.head = None if tied else nn.Linear(recurrent.width, vocab_size)
        if tied:  # logits near 1 at the start; torch's vectors are sqrt(F) times too long for a head
            nn.init.normal_(self.embedding.weight, std=recurrent.features**-0.5)

    def zeros(self, batch: int) -> State:
        """The state in which a text begins, each part (N, B, H)."""
        return self.recurrent.zeros(batch)

    def with_state(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Reads on from a state: logits (B, T, V), and the state after the last token, each part (N, B, H).

        The state goes with its graph; whoever trains window after window detaches it between them.

        Args:
            tokens: (B, T), those that follow what the state has read.
            state: from an earlier call or from `zeros`; None is the beginning of a text.
            lengths: (B,), how many tokens of each row are real, the first ones; the state is that after the last of them.
        """
        x = self.dropout(self.embedding(tokens))  # (B, T, F)
        x, state = self.recurrent(x, state, lengths)  # (B, T, H)
        x = self.dropout(x)
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x), state

    def forward(self, tokens: Tensor) -> Tensor:
        return self.with_state(tokens)[0]


def char_lstm(
    vocab_size: int = 65,
    width: int = 128,
    layers: int = 2,
    dropout: float = 0.0,
    tied: bool = False,
    forget_bias: float = 1.0,
) -> CharRNN:
    """280,897 parameters; 4,269,121 with a width of 512."""
    return CharRNN(LSTM(width, width, layers, dropout, forget_bias=forget_bias), vocab_size, dropout, tied)


def char_gru(vocab_size: int = 65, width: int = 128, layers: int = 2, dropout: float = 0.0, tied: bool = False) -> CharRNN:
    """214,849 parameters: three quarters of an LSTM's in the layers."""
    return CharRNN(GRU(width, width, layers, dropout), vocab_size, dropout, tied)


def char_rnn(vocab_size: int = 65, width: int = 128, layers: int = 2, dropout: float = 0.0, tied: bool = False) -> CharRNN:
    """82,753 parameters: a quarter of an LSTM's in the layers."""
    return CharRNN(RNN(width, width, layers, dropout), vocab_size, dropout, tied)
