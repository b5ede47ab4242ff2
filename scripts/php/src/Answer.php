<?php

declare(strict_types=1);

namespace Mega;

/** One `result` frame. */
final class Answer
{
    public const OK = 200;
    public const REJECTED = 400;
    public const FAILED = 500;
    public const UNAVAILABLE = 503;

    public function __construct(
        public readonly int $code,
        public readonly int $opaque,
        public readonly string $message,
    ) {
    }
}
