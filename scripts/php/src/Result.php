<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\MegaException;

/** What became of one message of a batch. */
final class Result
{
    /** @param MegaException|null $failure what a single call would have thrown; null: 200 */
    public function __construct(
        public readonly Message $message,
        public readonly ?MegaException $failure,
    ) {
    }

    public function ok(): bool
    {
        return $this->failure === null;
    }
}
