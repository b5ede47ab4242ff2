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
    /** @internal */
    public function __construct(Command $command, string $what, Answer $answer, public readonly Refusal $refusal)
    {
        parent::__construct("$what is refused for now: {$answer->message}", $command, $answer->code, $answer->message);
    }

    /**
     * A push that is refused was never taken in. A send may have been with WeChat already, without an answer
     * yet, when mega stopped or sending was suspended.
     */
    public function mayBeSent(): bool
    {
        return $this->command === Command::Send
            && !in_array($this->refusal, [Refusal::QueueFull, Refusal::Draining], true);
    }
}
