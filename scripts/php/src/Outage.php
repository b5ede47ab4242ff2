<?php

declare(strict_types=1);

namespace Mega;

/**
 * The time from a loss to the next answer, and the pauses between the attempts to end it. The first attempt is made
 * at once: it costs nothing where mega was restarted while this client was idle.
 *
 * @internal
 */
final class Outage
{
    private const FIRST_PAUSE = 0.1;
    private const LONGEST_PAUSE = 5.0;

    private float $until;
    private int $attempts = 0;

    public function __construct(float $retryFor)
    {
        $this->until = Clock::now() + $retryFor;
    }

    /** No attempt is made any more. */
    public function end(): void
    {
        $this->attempts = 1;
        $this->until = Clock::now();
    }

    /** Seconds before the next attempt; null when there is none any more. */
    public function pause(): ?float
    {
        $this->attempts++;
        if ($this->attempts === 1) {
            return 0.0;
        }
        $left = $this->until - Clock::now();
        if ($left <= 0) {
            return null;
        }
        $pause = min(self::FIRST_PAUSE * 2 ** min($this->attempts - 2, 10), self::LONGEST_PAUSE);
        // Clients that were cut off together do not come back together.
        return min($pause * random_int(500, 1000) / 1000, $left);
    }
}
