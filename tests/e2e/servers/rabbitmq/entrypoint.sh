#!/bin/bash
set -euo pipefail
umask 077
printf '%s' "$RABBITMQ_ERLANG_COOKIE" > "$HOME/.erlang.cookie"
unset RABBITMQ_ERLANG_COOKIE
exec rabbitmq-server
