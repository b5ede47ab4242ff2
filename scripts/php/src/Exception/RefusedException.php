<?php

declare(strict_types=1);

namespace Mega\Exception;

use Mega\Answer;
use Mega\Command;
use Mega\Refusal;

/**
 * "Not now": mega has not taken the request in (503, or 500 with mega's default `unavailable_code`). The same
 * request may be taken in later.
 */
final class RefusedException extends AnswerException
{
    /** What is said of a send only before it is taken in. */
    private const BEFORE_TAKING_IN = [Refusal::QueueFull, Refusal::Draining, Refusal::Ids];

    /** @internal */
    public function __construct(Command $command, string $what, Answer $answer, bool $repeated, public readonly Refusal $refusal)
    {
        parent::__construct("$what is refused for now: {$answer->message}", $command, $answer->code, $answer->message, $repeated);
    }

    /**
     * A push that is refused was never taken in, unless this answers a repeat: the first may have been. A send may have been with WeChat already, without an answer
     * yet, when mega stopped or sending was suspended.
     */
    public function mayBeSent(): bool
    {
        return match ($this->command) {
            Command::Tset => false,
            Command::Push => $this->repeated,
            Command::Send => $this->repeated
                || !in_array($this->refusal, self::BEFORE_TAKING_IN, true),
        };
    }
}
