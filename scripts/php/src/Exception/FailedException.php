<?php

declare(strict_types=1);

namespace Mega\Exception;

use Mega\Answer;
use Mega\Command;

/** 500, or a code this client does not know: WeChat or the database gave no usable answer. */
final class FailedException extends AnswerException
{
    /** @internal */
    public function __construct(Command $command, string $what, Answer $answer, bool $repeated)
    {
        $why = $answer->message === '' ? 'no reason is given' : $answer->message;
        parent::__construct("$what has failed with {$answer->code}: $why", $command, $answer->code, $answer->message, $repeated);
    }

    /** WeChat may have had the message when its answer failed to come. */
    public function mayBeSent(): bool
    {
        return $this->command !== Command::Tset;
    }
}
