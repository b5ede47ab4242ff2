<?php

declare(strict_types=1);

namespace Mega\Exception;

/** The caller's own mistake, found before anything was written. */
final class InvalidArgumentException extends \InvalidArgumentException implements MegaException
{
    public function mayBeSent(): bool
    {
        return false;
    }
}
