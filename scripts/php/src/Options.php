<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\InvalidArgumentException;

/**
 * How long a client waits for what, in seconds, and how long a frame may be. The defaults suit a web
 * request; a batch that should ride out a restart of mega wants a longer `retryFor`.
 */
final class Options
{
    /**
     * @param float $connectTimeout for one attempt to connect
     * @param float $timeout        without any answer, after which a connection counts as lost; mega answers
     *                              a send within its `send_retry_for` and the time of one call to WeChat
     * @param float $retryFor       for which a lost connection is made anew, with growing pauses; 0: a lost one
     *                              is made anew once, at once
     * @param int   $maxFrame       bytes of a request or an answer: `package_max_length` of mega
     */
    public function __construct(
        public readonly float $connectTimeout = 5.0,
        public readonly float $timeout = 60.0,
        public readonly float $retryFor = 10.0,
        public readonly int $maxFrame = 2465792,
    ) {
        foreach (['connectTimeout' => $connectTimeout, 'timeout' => $timeout] as $name => $seconds) {
            if (!is_finite($seconds) || $seconds <= 0) {
                throw new InvalidArgumentException("$name = $seconds: seconds, more than 0");
            }
        }
        if (!is_finite($retryFor) || $retryFor < 0) {
            throw new InvalidArgumentException("retryFor = $retryFor: seconds, 0 or more");
        }
        if ($maxFrame < 64 || $maxFrame > 64 << 20) {
            throw new InvalidArgumentException("maxFrame = $maxFrame: bytes, from 64 to 64 MiB");
        }
    }
}
