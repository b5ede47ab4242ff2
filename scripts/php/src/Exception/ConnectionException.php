<?php

declare(strict_types=1);

namespace Mega\Exception;

/** mega cannot be reached, and the request was never written as a whole: nothing was sent. */
final class ConnectionException extends \RuntimeException implements MegaException
{
    public function mayBeSent(): bool
    {
        return false;
    }
}
