<?php

declare(strict_types=1);

namespace Mega;

/**
 * Seconds that no change of the machine's time moves.
 *
 * @internal
 */
final class Clock
{
    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}
