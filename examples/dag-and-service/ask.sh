# Asks the shop for one fruit, and again until the shop is open. usage: sh ask.sh FRUIT   (SHOP="host port")
set -eu
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  # shellcheck disable=SC2086 # host and port are two words
  answer=$(echo "$1" | nc $SHOP) || true
  if [ -n "$answer" ]; then
    echo "$answer"
    exit 0
  fi
  echo "attempt $attempt: no answer yet" >&2
  sleep 1
done
echo "the shop never opened" >&2
exit 1
