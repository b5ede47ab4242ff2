<?php

declare(strict_types=1);

namespace Mega\Exception;

use Mega\Answer;
use Mega\Command;

/**
 * 400: this request is wrong and will be wrong again: no such template, data that is no set of variables, or
 * WeChat's own refusal, whose `errcode` and `errmsg` are set then.
 */
final class RejectedException extends AnswerException
{
    public readonly ?int $errcode;
    public readonly ?string $errmsg;

    /** @internal */
    public function __construct(Command $command, string $what, Answer $answer, bool $repeated)
    {
        $told = json_decode($answer->message, true, 16);
        $errcode = is_array($told) ? $told['errcode'] ?? null : null;
        $this->errcode = is_int($errcode) ? $errcode : null;
        $errmsg = $this->errcode === null ? null : $told['errmsg'] ?? '';
        $this->errmsg = is_string($errmsg) ? $errmsg : null;
        $why = $this->errcode === null ? $answer->message : "WeChat answers $errcode {$this->errmsg}";
        parent::__construct("$what is rejected: $why", $command, $answer->code, $answer->message, $repeated);
    }

    /** Only where it answers a repeat: the first may have been taken in. */
    public function mayBeSent(): bool
    {
        return $this->repeated && $this->command !== Command::Tset;
    }
}
