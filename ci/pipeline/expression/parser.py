"""Parser: an expression as a tree, by precedence climbing. What can be known without values is checked."""

from __future__ import annotations

from ci.pipeline.expression import nodes, patterns
from ci.pipeline.expression.errors import BadExpression
from ci.pipeline.expression.functions import FUNCTIONS, PREDICATES, Function
from ci.pipeline.expression.lexer import Kind, Token, tokens
from ci.pipeline.expression.nodes import Node

MAX_DEPTH = 64
_INT_LIMIT = 1 << 63
_UNARY = {"not": 50, "!": 50, "-": 90, "+": 90}
_BINARY = {
    **dict.fromkeys(("|",), 0),
    **dict.fromkeys(("or", "||"), 10),
    **dict.fromkeys(("and", "&&"), 15),
    **dict.fromkeys(("==", "!=", "<", ">", "<=", ">="), 20),
    **dict.fromkeys(("in", "matches", "contains", "startsWith", "endsWith"), 20),
    "..": 25,
    **dict.fromkeys(("+", "-"), 30),
    **dict.fromkeys(("*", "/", "%"), 60),
    **dict.fromkeys(("**", "^"), 100),
    "??": 500,
}
_COMPARISONS = ("==", "!=", "<", ">", "<=", ">=")
_RIGHT = ("**", "^")
_NEGATED = ("in", "matches", "contains", "startsWith", "endsWith")
_SAME = {"||": "or", "&&": "and", "!": "not", "^": "**"}
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(source: str) -> Node:
    """Raises BadExpression."""
    parser = _Parser(tokens(source))
    node = parser.sequence()
    parser.expect_end()
    return node


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._depth = 0
        self._predicates = 0
        self._locals: list[str] = []

    @property
    def _token(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._token
        self._at += 1
        return token

    def _take(self, *texts: str) -> bool:
        if self._token.is_op(*texts):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise BadExpression(f"{text!r} is expected here, not {self._shown()}", self._token.offset)

    def _shown(self) -> str:
        return "the end" if self._token.kind is Kind.END else repr(self._token.text)

    def expect_end(self) -> None:
        if self._token.kind is not Kind.END:
            raise BadExpression(f"{self._shown()} is not expected here", self._token.offset)

    # --- expressions ----------------------------------------------------------------------------------

    def sequence(self) -> Node:
        offset, parts = self._token.offset, [self.expression()]
        while self._take(";"):
            parts.append(self.expression())
        return parts[0] if len(parts) == 1 else nodes.Sequence(offset=offset, parts=tuple(parts))

    def expression(self, precedence: int = 0) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadExpression(f"it is nested deeper than {MAX_DEPTH}", self._token.offset)
        try:
            if precedence == 0 and self._token.is_op("let"):
                return self._let()
            if precedence == 0 and self._token.is_op("if"):
                return self._if()
            node = self._operators(self._primary(), precedence)
            return self._conditional(node) if precedence == 0 else node
        finally:
            self._depth -= 1

    def _operators(self, left: Node, precedence: int) -> Node:
        while True:
            token = self._token
            is_negated = token.is_op("not") and self._tokens[self._at + 1].is_op(*_NEGATED)
            operator = self._tokens[self._at + 1].text if is_negated else token.text
            if token.kind is not Kind.OPERATOR or _BINARY.get(operator, -1) < precedence:
                return left
            self._at += 2 if is_negated else 1
            left = self._binary(left, operator, token.offset)
            if is_negated:
                left = nodes.Unary(offset=token.offset, operator="not", operand=left)

    def _binary(self, left: Node, operator: str, offset: int) -> Node:
        if operator == "|":
            return self._postfix(self._piped(left))
        power = _BINARY[operator]
        if operator in _COMPARISONS:
            return self._comparison(left, operator, offset)
        right = self.expression(power if operator in _RIGHT else power + 1)
        operator = _SAME.get(operator, operator)
        if operator == "matches" and isinstance(right, nodes.Constant) and isinstance(right.value, str):
            patterns.compiled(right.value, right.offset)
        return nodes.Binary(offset=offset, operator=operator, left=left, right=right)

    def _comparison(self, left: Node, operator: str, offset: int) -> Node:
        operators, operands = [operator], [left, self.expression(_BINARY[operator] + 1)]
        while self._token.is_op(*_COMPARISONS):
            operators.append(self._next().text)
            operands.append(self.expression(_BINARY[operator] + 1))
        return nodes.Comparison(offset=offset, operators=tuple(operators), operands=tuple(operands))

    def _piped(self, left: Node) -> Node:
        token = self._next()
        if token.kind is not Kind.NAME:
            raise BadExpression("the name of a function is expected after '|'", token.offset)
        return self._call(token, (left,))

    def _conditional(self, node: Node) -> Node:
        while self._token.is_op("?"):
            offset = self._next().offset
            if self._take(":"):
                then = node
            else:
                then = self.expression()
                self._expect(":")
            otherwise = self.expression()
            node = nodes.Conditional(offset=offset, condition=node, then=then, otherwise=otherwise)
        return node

    def _let(self) -> Node:
        offset = self._next().offset
        token = self._next()
        if token.kind is not Kind.NAME or token.text.startswith("$") or token.text in _CONSTANTS:
            raise BadExpression("the name of a variable is expected after 'let'", token.offset)
        if token.text in FUNCTIONS or token.text in PREDICATES:
            raise BadExpression(f"{token.text!r} is the name of a function", token.offset)
        self._expect("=")
        value = self.expression()
        self._expect(";")
        self._locals.append(token.text)
        body = self.sequence()
        self._locals.pop()
        return nodes.Let(offset=offset, name=token.text, value=value, body=body)

    def _if(self) -> Node:
        offset = self._next().offset
        condition, then = self.expression(), self._block()
        if not self._take("else"):
            raise BadExpression(f"'else' is expected here, not {self._shown()}", self._token.offset)
        otherwise = self._if() if self._token.is_op("if") else self._block()
        return nodes.Conditional(offset=offset, condition=condition, then=then, otherwise=otherwise)

    def _block(self) -> Node:
        self._expect("{")
        node = self.sequence()
        self._expect("}")
        return node

    # --- operands ---------------------------------------------------------------------------------------

    def _primary(self) -> Node:
        token = self._token
        if token.kind is Kind.OPERATOR and token.text in _UNARY:
            self._at += 1
            operator = _SAME.get(token.text, token.text)
            operand = self.expression(_UNARY[token.text])
            return self._postfix(nodes.Unary(offset=token.offset, operator=operator, operand=operand))
        if self._take("("):
            node = self.sequence()
            self._expect(")")
            return self._postfix(node)
        if token.is_op("#", "."):
            return self._postfix(self._element())
        if self._take("::"):
            return self._postfix(self._call(self._next(), ()))
        return self._postfix(self._literal())

    def _element(self) -> Node:
        token = self._token
        if not self._predicates:
            raise BadExpression(f"{token.text!r} is for predicates, such as those of filter", token.offset)
        name = ""
        if self._take("#") and self._token.kind is Kind.NAME and self._token.offset == token.offset + 1:
            name = self._next().text
        if name not in ("", "index", "acc"):
            raise BadExpression(f"'#{name}' is none of #, #index, #acc", token.offset)
        return nodes.Element(offset=token.offset, name=name)

    def _literal(self) -> Node:
        token = self._next()
        match token.kind:
            case Kind.NUMBER:
                return nodes.Constant(offset=token.offset, value=_number(token))
            case Kind.TEXT:
                return nodes.Constant(offset=token.offset, value=token.text)
            case Kind.NAME:
                return self._name(token)
        if token.is_op("["):
            return nodes.Array(offset=token.offset, items=tuple(self._list("]")))
        if token.is_op("{"):
            return self._map(token)
        self._at -= 1
        raise BadExpression(f"a value is expected here, not {self._shown()}", token.offset)

    def _name(self, token: Token) -> Node:
        if token.text in _CONSTANTS:
            return nodes.Constant(offset=token.offset, value=_CONSTANTS[token.text])
        if token.text == "$env":
            return nodes.Environment(offset=token.offset)
        if self._token.is_op("("):
            return self._call(token, ())
        if token.text.startswith("$"):
            raise BadExpression(f"{token.text!r} means nothing; $env is all variables", token.offset)
        return nodes.Name(offset=token.offset, name=token.text, is_local=token.text in self._locals)

    def _list(self, end: str) -> list[Node]:
        """To `end`, with commas between; one more at the end is fine."""
        found: list[Node] = []
        while not self._take(end):
            if found:
                self._expect(",")
                if self._take(end):
                    break
            found.append(self.expression())
        return found

    def _map(self, begin: Token) -> Node:
        pairs: list[tuple[Node, Node]] = []
        while not self._take("}"):
            if pairs:
                self._expect(",")
                if self._take("}"):
                    break
            pairs.append((self._key(), self.expression()))
        return nodes.Map(offset=begin.offset, pairs=tuple(pairs))

    def _key(self) -> Node:
        token = self._token
        if token.kind in (Kind.NUMBER, Kind.TEXT, Kind.NAME):
            key: Node = nodes.Constant(offset=token.offset, value=self._next().text)
        elif token.is_op("("):
            key = self._primary()
        else:
            raise BadExpression(f"the key of a map is expected here, not {self._shown()}", token.offset)
        self._expect(":")
        return key

    def _postfix(self, node: Node) -> Node:
        is_chain = False
        # `.name` right after `.` of an element without a name: its member.
        while self._token.is_op(".", "?.", "["):
            token = self._next()
            is_optional = token.text == "?."
            is_chain = is_chain or is_optional
            if token.text == "[" or (is_optional and self._take("[")):
                node = self._index(node, token.offset, is_optional=is_optional)
            else:
                node = self._member(node, is_optional=is_optional)
        return nodes.Chain(offset=node.offset, node=node) if is_chain else node

    def _member(self, of: Node, *, is_optional: bool) -> Node:
        token = self._next()
        is_word = token.kind is Kind.OPERATOR and token.text.isalpha()
        if token.kind is not Kind.NAME and not is_word:
            raise BadExpression("the name of a field is expected after '.'", token.offset)
        if self._token.is_op("("):
            raise BadExpression(f"{token.text!r}: values have no methods here", token.offset)
        key = nodes.Constant(offset=token.offset, value=token.text)
        return nodes.Member(offset=token.offset, of=of, key=key, is_optional=is_optional)

    def _index(self, of: Node, offset: int, *, is_optional: bool) -> Node:
        start = None if self._token.is_op(":") else self.expression()
        if self._take(":"):
            stop = None if self._token.is_op("]") else self.expression()
            self._expect("]")
            return nodes.Slice(offset=offset, of=of, start=start, stop=stop)
        self._expect("]")
        assert start is not None
        return nodes.Member(offset=offset, of=of, key=start, is_optional=is_optional)

    # --- calls ------------------------------------------------------------------------------------------

    def _call(self, token: Token, first: tuple[Node, ...]) -> Node:
        name = token.text
        function = PREDICATES.get(name) or FUNCTIONS.get(name)
        if function is None:
            raise BadExpression(f"there is no function {name!r}", token.offset)
        if function.refusal:
            raise BadExpression(f"{name}: {function.refusal}", token.offset)
        self._expect("(")
        if name in PREDICATES:
            arguments = (*first, *self._with_predicate(len(first)))
        else:
            arguments = (*first, *self._list(")"))
        _check_count(token, function, len(arguments))
        return nodes.Call(offset=token.offset, function=name, arguments=arguments)

    def _with_predicate(self, given: int) -> list[Node]:
        """The second argument is a predicate."""
        found: list[Node] = []
        while not self._take(")"):
            if found:
                self._expect(",")
                if self._take(")"):
                    break
            is_predicate = given + len(found) == 1
            found.append(self._predicate() if is_predicate else self.expression())
        return found

    def _predicate(self) -> Node:
        offset = self._token.offset
        self._predicates += 1
        body = self._block() if self._token.is_op("{") else self.expression()
        self._predicates -= 1
        return nodes.Predicate(offset=offset, body=body)


def _number(token: Token) -> int | float:
    text = token.text.lower()
    if text.startswith(("0x", "0b", "0o")):
        digits = text[2:]
        number: int | float = int(digits, {"x": 16, "b": 2, "o": 8}[text[1]]) if digits else _INT_LIMIT
    elif "." in text or "e" in text:
        return float(text)
    else:
        number = int(text) if len(text) < 30 else _INT_LIMIT
    if number >= _INT_LIMIT:
        raise BadExpression(f"{token.text[:30]} is no whole number of 64 bits", token.offset)
    return number


def _check_count(token: Token, function: Function, count: int) -> None:
    least, most = function.least, function.most
    if least <= count <= most:
        return
    wanted = f"{least}" if least == most else f"{least} or more" if most > 100 else f"{least} to {most}"
    raise BadExpression(f"{token.text} takes {wanted} arguments, here are {count}", token.offset)
