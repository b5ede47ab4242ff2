<?php

declare(strict_types=1);

namespace Mega\Exception;

/**
 * The request was written and its answer was lost: the message may have been sent. Thrown for requests without an
 * id, and for those with one that could not be repeated while mega still recognises it.
 */
final class UnknownOutcomeException extends \RuntimeException implements MegaException
{
    public function mayBeSent(): bool
    {
        return true;
    }
}
