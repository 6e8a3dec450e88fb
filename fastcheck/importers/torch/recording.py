"""One forward pass of a PyTorch module, recorded: which operation made which tensor, and where.

A recording sees what runs, so functional calls, loops, and questions about shapes need no special
care. Imports torch: only `from_torch` may import it, when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Operation", "Recorder", "Value"]

# How many of their tensors these read the values of; of the others they want the shape alone.
SHAPES_ONLY = {
    "expand_as": 1, "view_as": 1, "reshape_as": 1, "type_as": 1, "zeros_like": 0, "ones_like": 0,
    "full_like": 0, "new_zeros": 0, "new_ones": 0, "new_full": 0,
}  # fmt: skip


@dataclass(eq=False)
class Value:
    """What a tensor held from one operation to the next.

    Attributes
    ----------
    tensor : torch.Tensor
        Kept, so that no other tensor takes its id.
    maker : Operation or None
        None for what was there before, and where it was made unseen.
    parameter : str
        The module's name of it; "" for what is no parameter.
    theta, data : bool
        Whether it depends on parameters, on the batch.
    node : object or None
        Its node in autograd's graph.
    """

    tensor: Any
    maker: Operation | None = None
    parameter: str = ""
    theta: bool = False
    data: bool = False
    node: Any = None

    @property
    def flow(self) -> bool:
        """Whether it is on the way from the first layer to J."""
        return self.theta and self.data

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.tensor.shape)


@dataclass(eq=False)
class Operation:
    """One call of a torch function.

    Attributes
    ----------
    name : str
        `relu` for `F.relu`, `torch.relu`, `x.relu()` and `x.relu_()` alike; `activation` for a
        module or function that the user has named.
    function : callable
    args, kwargs
        As they were given, with a `Value` in place of each tensor.
    inputs : list of Value
        All tensors among them.
    place : str
        Name and type of the module it ran in.
    path : str
        The module's name alone, where it has no parameters and so may be an activation; else "".
    claim : Any
        What the user says that it is.
    output : Value or None
    """

    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Value]
    place: str
    path: str
    claim: Any = None
    output: Value | None = None

    @property
    def flow(self) -> list[Value]:
        """The inputs on the way from the first layer to J, each once."""
        return list(dict.fromkeys(v for v in self.inputs if v.flow))

    @property
    def parameters(self) -> list[Value]:
        """The inputs made of parameters alone."""
        return [v for v in self.inputs if v.theta and not v.data]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that was given by place or by name."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if len(self.args) > position else default


def operation_name(function: Any) -> str:
    """Return `relu` for `relu_`, `add` for `__iadd__`, `T` for the getter of Tensor.T."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    plain = str(name).strip("_")
    aliases = {
        "iadd": "add", "radd": "add", "isub": "sub", "rsub": "rsub", "imul": "mul", "rmul": "mul",
        "truediv": "div", "itruediv": "div", "true_divide": "div", "divide": "div",
        "multiply": "mul", "subtract": "sub", "mm": "matmul", "clip": "clamp", "swish": "silu",
        "ipow": "pow", "negative": "neg",
    }  # fmt: skip
    return aliases.get(plain, plain)


class Recorder(TorchFunctionMode):  # type: ignore[misc]  # Any where torch is not followed
    """Records what runs between its entry and its exit.

    Parameters
    ----------
    module : torch.nn.Module
    claims : mapping
        What the user says that modules (by name or class), functions and autograd functions are.
    """

    def __init__(self, module: Any, claims: Mapping[Any, Any]) -> None:
        super().__init__()
        self.module = module
        self.claims = claims
        self.values: dict[int, Value] = {}
        self.kept: list[Value] = []
        self.stack: list[tuple[str, Any]] = [("", module)]
        self._hooks = ExitStack()
        self.used: set[Any] = set()
        for name, parameter in module.named_parameters():
            self._keep(Value(parameter, parameter=name, theta=True))

    def __enter__(self) -> Recorder:
        """Watch the submodules too."""
        for name, child in self.module.named_modules():
            self._watch(name, child)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave no hook behind."""
        super().__exit__(*error)
        self._hooks.close()

    def data(self, tensor: Any) -> None:
        """Say that a tensor is part of the batch."""
        self._keep(Value(tensor, data=True))

    def _keep(self, value: Value) -> Value:
        self.values[id(value.tensor)] = value
        self.kept.append(value)
        return value

    def value(self, tensor: Any) -> Value:
        """Return what is known of a tensor now; a custom autograd.Function shows in its node."""
        value = self.values.get(id(tensor))
        if value is None:
            unseen = tensor.grad_fn is not None or tensor.requires_grad
            value = self._keep(Value(tensor, theta=unseen, data=unseen))
        if value.node is None and tensor.grad_fn is not None:
            value.node = tensor.grad_fn
            custom = getattr(type(tensor.grad_fn), "_forward_cls", None)
            if custom is not None:
                self._custom(value, custom)
        return value

    def _custom(self, value: Value, function: Any) -> None:
        """Put a named autograd.Function in place of the operations inside its forward."""
        claim = self._claim(function)
        seen = value.maker is not None and value.maker.inputs
        if claim is None and seen:
            return  # its forward is made of operations that were seen: they are read instead
        before = {node for node, _ in value.node.next_functions if node is not None}
        inputs = [v for v in self.kept if v.node in before and v is not value]
        last = inputs[-1:] if claim is not None else inputs
        if not last and seen and value.maker is not None:
            return
        place, path = self._place()
        place = f"{function.__name__} in {place}"
        name = "activation" if claim is not None else function.__name__
        value.maker = Operation(name, function, tuple(last), {}, last, place, path, claim, value)

    def _claim(self, *names: Any) -> Any:
        for name in names:
            try:
                claim = self.claims.get(name)
            except TypeError:
                continue
            if claim is not None:
                self.used.add(name)
                return claim
        return None

    def enter_loss(self) -> None:
        """Say that what follows is the loss's."""
        self.stack.append(("", None))

    def _place(self) -> tuple[str, str]:
        path, module = self.stack[-1]
        if module is None:
            return "the loss", ""
        kind = type(module).__name__
        owns = any(True for _ in module.parameters())
        return (f"{path} ({kind})" if path else kind), "" if owns else path

    def _watch(self, name: str, child: Any) -> None:
        """Follow a submodule's calls: the place of an operation, and named activations."""
        entered: list[Value | None] = []

        def enter(_: Any, args: tuple[Any, ...]) -> None:
            self.stack.append((name, child))
            first = args[0] if args else None
            entered.append(self.value(first) if isinstance(first, torch.Tensor) else None)

        def leave(_: Any, args: tuple[Any, ...], output: Any) -> None:
            self._left(entered.pop(), output)
            self.stack.pop()

        self._hooks.callback(child.register_forward_pre_hook(enter).remove)
        self._hooks.callback(child.register_forward_hook(leave).remove)

    def _left(self, before: Value | None, output: Any) -> None:
        """Note what a submodule made, where it is a named activation or could not be seen into."""
        if before is None or not isinstance(output, torch.Tensor):
            return
        path, child = self.stack[-1]
        claim = self._claim(path, type(child)) if path else None
        unseen = self.value(output).maker is None and output.grad_fn is not None
        if claim is not None or unseen:
            name = "activation" if claim is not None else type(child).__name__
            place = self._place()
            self._made(Operation(name, child, (before,), {}, [before], *place, claim), output)

    def _made(self, operation: Operation, output: Any) -> None:
        """Keep what an operation made."""
        theta = any(v.theta for v in operation.inputs)
        data = any(v.data for v in operation.inputs)
        operation.output = self._keep(
            Value(output, maker=operation, theta=theta, data=data, node=output.grad_fn)
        )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and remember what it made."""
        kwargs = kwargs or {}
        args_seen = _replaced(args, self.value)
        kwargs_seen = _replaced(kwargs, self.value)
        place, path = self._place()
        claim = self._claim(func)
        output = func(*args, **kwargs)
        inputs = list(_values((args_seen, kwargs_seen)))[: SHAPES_ONLY.get(operation_name(func))]
        changed = args[0] if func is torch.Tensor.__setitem__ else output
        for tensor in _tensors(changed):
            name = "activation" if claim is not None else operation_name(func)
            self._made(
                Operation(name, func, args_seen, kwargs_seen, inputs, place, path, claim), tensor
            )
        return output


def _replaced(item: Any, value: Callable[[Any], Value]) -> Any:
    """Return arguments with a value in place of each tensor."""
    if isinstance(item, torch.Tensor):
        return value(item)
    if isinstance(item, dict):
        return {k: _replaced(v, value) for k, v in item.items()}
    if isinstance(item, (list, tuple)):
        return tuple(_replaced(v, value) for v in item)
    return item


def _leaves(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        item = tuple(item.values())
    if isinstance(item, (list, tuple)):
        for part in item:
            yield from _leaves(part)
    else:
        yield item


def _tensors(item: Any) -> Iterator[Any]:
    return (leaf for leaf in _leaves(item) if isinstance(leaf, torch.Tensor))


def _values(item: Any) -> Iterator[Value]:
    return (leaf for leaf in _leaves(item) if isinstance(leaf, Value))
