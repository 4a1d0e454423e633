# Prints the label of one cone, and its topping where the cell has one.
set -eu
echo "$FLAVOUR $SIZE"
[ -z "${TOPPING:-}" ] || echo "with $TOPPING"
